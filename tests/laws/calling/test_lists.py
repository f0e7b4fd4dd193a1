"""Each list, in each of its orders and by each of its filters: one statement, by an index."""

from datetime import date
from typing import Any
from uuid import UUID

import pytest
from pydantic import AwareDatetime

from bus.contract import ListOf
from bus.running.registry import Bound
from fleetbus.server.service import Service
from tests.bus.asking import Asker
from tests.counting import counting
from tests.laws.calling.arranging import Arrangement
from tests.laws.calling.bodies import Body, choices, every, parts
from tests.laws.calling.plans import Plans

LISTS = every(lambda bound: issubclass(bound.operation, ListOf))

ORDERS = [
    pytest.param(bound, order, id=f"{bound.subject}-{order}")
    for [bound] in (parameter.values for parameter in LISTS)
    for order in choices(bound.operation.model_fields["order"].annotation)
]

FILTERS = [
    pytest.param(bound, name, id=f"{bound.subject}-{name}")
    for [bound] in (parameter.values for parameter in LISTS)
    for name in bound.operation.model_fields
    if name not in ListOf.model_fields
]

VALUES: dict[Any, Any] = {
    bool: True,
    int: 1,
    date: "2026-01-31",
    AwareDatetime: "2026-01-31T12:00:00Z",
    UUID: "0199c0de-0000-7000-8000-0000000000ff",
    str: "nobody",
}


def kind(bound: Bound, name: str) -> Any:
    """What a filter takes, if it takes any value of a type; None if its values are counted."""
    annotation = bound.operation.model_fields[name].annotation
    if any(choices(annotation)):
        return None
    return next(part for part in VALUES if part in set(parts(annotation)))


def counts(bound: Bound) -> bool:
    return "exact" in choices(bound.operation.model_fields["count"].annotation)


async def pages(ask: Asker, bound: Bound, body: Body) -> list[Any]:
    """The items of a list, a page after the other to its end."""
    found: list[Any] = []
    more: Body = {}
    while True:
        page = (await ask(bound.subject, body | more)).body
        assert len(page["items"]) <= body["limit"]
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        assert page["items"]
        more = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize(("bound", "order"), ORDERS)
async def test_order_is_that_of_an_index(
    bound: Bound, order: str, ask: Asker, arranged: Arrangement, called: Service, plans: Plans
) -> None:
    body = await arranged.listing(bound) | {"order": order}
    with counting(called.database) as counted:
        got = await ask(bound.subject, body)
    asked = list(zip(counted.texts, counted.values, strict=True))

    assert got.status == 200, got.body
    assert len(asked) <= 1 + ("clock_timestamp" in asked[0][0]) + (len(got.body["items"]) == 0)
    for statement, values in asked:
        assert await plans.whole(statement, values) == [], statement


@pytest.mark.parametrize(("bound", "order"), ORDERS)
async def test_pages_join(bound: Bound, order: str, ask: Asker, arranged: Arrangement) -> None:
    body = await arranged.listing(bound) | {"order": order}
    whole = await pages(ask, bound, body | {"limit": 500})
    assert len({str(item) for item in whole}) == len(whole)

    limit = max(1, min(len(whole) // 3, 499))
    assert await pages(ask, bound, body | {"limit": limit}) == whole
    back = order.removeprefix("-") if order.startswith("-") else f"-{order}"
    if back in choices(bound.operation.model_fields["order"].annotation):
        turned = await pages(ask, bound, body | {"order": back, "limit": 500})
        assert turned == whole[::-1]
    if counts(bound):
        counted = await ask(bound.subject, body | {"limit": 1, "count": "exact"})
        assert counted.body["total"] == len(whole)


@pytest.mark.parametrize(("bound", "name"), FILTERS)
async def test_filter_alone(
    bound: Bound, name: str, ask: Asker, arranged: Arrangement, called: Service, plans: Plans
) -> None:
    body, takes = await arranged.listing(bound), kind(bound, name)
    known = await arranged.value_of(bound, name)
    value = VALUES.get(takes) if known is None else known
    counted_too = {"count": "exact"} if counts(bound) else {}

    with counting(called.database) as counted:
        got = await ask(bound.subject, body | {name: value} | counted_too)

    assert got.status == 200, got.body
    assert all(item.get(name, value) == value for item in got.body["items"])
    if takes in {UUID, str} and name != "search":
        asked = [*zip(counted.texts, counted.values, strict=True)]
        # A page may follow the index of its order; who counts has no order to follow.
        statement, values = next(one for one in asked if ("count(" in one[0]) == counts(bound))
        assert await plans.is_led_by_an_index(statement, values), statement
