from typing import Any

import pytest

from bus.contract.errors import AlreadyExists, InvalidRequest
from contracts.documents import generations
from fleetbus.client import Bus
from tests.kit.outbox import Outbox

REPO = "https://git.example.org/acme/parser"


async def generate(bus: Bus, repo_url: str = REPO, **fields: Any) -> generations.Generation:
    return await bus.call(
        generations.RecordGeneration(repo_url=repo_url, content="# Parser", **fields)
    )


class TestRecordGeneration:
    async def test_recorded_and_told_without_its_content(self, bus: Bus, outbox: Outbox) -> None:
        made = await generate(bus, sources=["src/parser.py"], pr_url=f"{REPO}/pull/1")
        assert (made.repo_url, made.sources, made.is_dry_run) == (REPO, ["src/parser.py"], False)
        [row] = await outbox.all()
        assert (row.type, row.entity_id) == ("generation.recorded", str(made.id))
        assert row.data["generation"]["characters"] == len("# Parser")
        assert "content" not in row.data["generation"]

    async def test_id_is_taken(self, bus: Bus) -> None:
        made = await generate(bus)
        with pytest.raises(AlreadyExists):
            await generate(bus, id=made.id)

    @pytest.mark.parametrize(
        "url",
        [
            "http://git.example.org/acme/parser",
            "https://git.example.org/acme",
            "https://git.example.org/acme/parser/tree",
            "https:///acme/parser",
            "https://git.example.org/../parser",
            "git@git.example.org:acme/parser",
        ],
    )
    async def test_address_of_something_else(self, bus: Bus, url: str) -> None:
        fields = {"repo_url": url, "content": "x"}
        request = generations.RecordGeneration.model_construct(set(fields), **fields)  # type: ignore[arg-type]  # past the client's own check
        with pytest.raises(InvalidRequest) as refused:
            await bus.call(request)
        assert refused.value.errors[0].field == "repo_url"


class TestListGenerations:
    async def test_filters(self, bus: Bus, statements: Any) -> None:
        one = await generate(bus)
        two = await generate(bus, is_dry_run=True)
        other = await generate(bus, "https://git.example.org/acme/lexer")
        with statements() as counted:
            page = await bus.call(generations.ListGenerations())
        assert (page.items, counted.total) == ([one, two, other], 1)
        page = await bus.call(generations.ListGenerations(repo_url=REPO))
        assert page.items == [one, two]
        page = await bus.call(generations.ListGenerations(is_dry_run=True))
        assert page.items == [two]
