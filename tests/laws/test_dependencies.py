"""Laws of what functions ask for by annotation: provided where a process is put together."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from bus.contract.catalogue import Catalogue
from bus.contract.refusals import DeclarationError
from bus.handling.dependencies import Provided
from bus.handling.shapes import HANDLERS, Handling
from bus.running.registry import Registry, _bind
from bus.storage import KeyRing
from fleetbus import domain
from tests.laws.declaring import HANDLER, define, forgotten


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    domain.registry()
    with forgotten():
        yield


ASKS = [
    (
        "keys: KeyRing",
        Provided({Catalogue: None}, {"retention": 1}),
        "nobody provides keys: KeyRing (there are: Catalogue; the settings retention)",
    ),
    (
        "retention: Annotated[timedelta, Configured('kept')]",
        Provided({}, {"retention": timedelta(1)}),
        "nobody provides retention: the setting kept (there are: no gateways; the settings ret",
    ),
    (
        "retention: Annotated[timedelta, Configured('retention')]",
        Provided({}, {"retention": 90.0}),
        "retention is <class 'datetime.timedelta'>, and the setting retention is 90.0",
    ),
]


def seeing(parameters: str) -> tuple[Registry, Handling]:
    """A registry with one operation, whose handler asks for these."""
    declared = domain.registry()
    define(f"@query\nasync def see_task(query: SeeTask, *, {parameters}) -> Task: ...")
    [handling] = [one for one in HANDLERS.by_operation.values() if one.name == "see_task"]
    assert handling.operation is not None
    operations = {"db.tasks.see": _bind(handling.operation, handling)}
    return replace(declared, operations=operations, reactions={}, jobs=()), handling


@pytest.mark.parametrize(("parameter", "provided", "mend"), ASKS)
def test_what_nobody_provides_stops_the_process(
    parameter: str, provided: Provided, mend: str
) -> None:
    registry, _ = seeing(parameter)
    with pytest.raises(DeclarationError) as refusal:
        registry.with_provided(provided)
    assert str(refusal.value).startswith(f"{HANDLER}.see_task: {mend}")


def test_what_is_provided_is_given() -> None:
    registry, handling = seeing(
        "keys: KeyRing, kept: Annotated[timedelta | None, Configured('retention')]"
    )
    ring = KeyRing.parse("")
    registry = registry.with_provided(Provided({KeyRing: ring}, {"retention": None}))
    assert registry.given_to(handling) == {"keys": ring, "kept": None}
