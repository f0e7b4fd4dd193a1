"""The example of an operation is answered, once there is what it names."""

import pytest

from bus.contract import Entity, GetOf
from bus.running.registry import Bound
from fleetbus.server.service import Service
from tests.bus.asking import Asker
from tests.laws.calling.arranging import OUT_OF_REACH, Arrangement
from tests.laws.calling.bodies import every, makers


@pytest.mark.parametrize("bound", every())
async def test_is_answered(bound: Bound, ask: Asker, arranged: Arrangement) -> None:
    got = await ask(bound.subject, await arranged.body(bound))

    if bound.subject in OUT_OF_REACH:
        assert got.type in {error.type for error in bound.declared.errors}
    else:
        assert got.status == 200, (got.body, "no way leads there: see OUT_OF_REACH")


@pytest.mark.parametrize("bound", every(lambda bound: issubclass(bound.operation, GetOf)))
async def test_what_was_made_is_got_by_its_id(
    bound: Bound, ask: Asker, arranged: Arrangement, called: Service
) -> None:
    entity = bound.declared.reply
    assert issubclass(entity, Entity)
    maker = makers(called.registry, entity)[0]
    made = await ask(maker.subject, await arranged.body(maker))

    got = await ask(bound.subject, {"id": made.body["id"]})

    assert (made.status, got.status) == (200, 200)
    assert got.data == made.data


def test_what_is_out_of_reach_is_there(called: Service) -> None:
    assert OUT_OF_REACH.keys() <= called.registry.operations.keys()
