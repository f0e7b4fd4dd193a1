"""A registry of some contexts: what it holds, and what a service with it answers."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.errors import NoRespondersError

from bus.contract.refusals import DeclarationError
from bus.running.registry import Registry
from contracts.planning.tasks import ListTasks
from fleetbus import domain
from fleetbus.client import Bus

ROOT = Path(__file__).parents[2]


def modules(registry: Registry) -> Iterator[str]:
    """Where the reactions and jobs lie."""
    handlings = [one for several in registry.reactions.values() for one in several]
    handlings += [job.handling for job in registry.jobs]
    return (handling.function.__module__ for handling in handlings)


class TestOnly:
    """What a registry of some contexts holds."""

    @pytest.mark.parametrize(
        ("only", "contexts"),
        [
            ({"planning"}, {"planning"}),
            ({"agents"}, {"agents", "planning"}),
            ({"health", "meta"}, {"health", "meta"}),
        ],
    )
    def test_contexts_and_what_they_need(self, only: set[str], contexts: set[str]) -> None:
        whole, some = domain.registry(), domain.registry(only)
        assert {context.name for context in some.catalogue.contexts} == contexts
        wanted = {s for s, b in whole.operations.items() if b.declared.context in contexts}
        assert some.operations.keys() == wanted

    def test_nothing_of_higher_contexts_follows(self) -> None:
        whole, some = domain.registry(), domain.registry(("planning",))
        assert {module.split(".")[1] for module in modules(some)} == {"planning"}
        assert {module.split(".")[1] for module in modules(whole)} >= {"planning", "agents"}

    def test_all_of_their_own_follows(self) -> None:
        whole, some = domain.registry(), domain.registry(("planning",))
        own = [module for module in modules(whole) if module.split(".")[1] == "planning"]
        assert sorted(modules(some)) == sorted(own)

    def test_nothing_else_is_loaded(self) -> None:
        program = (
            "import sys; from fleetbus import domain; domain.registry(('agents',));"
            "print(*{n.split('.')[1] for n in sys.modules if n.startswith(('contracts.',"
            " 'persistence.', 'handlers.'))})"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
        )
        assert {*ended.stdout.split()} == {"agents", "planning"}

    def test_unknown(self) -> None:
        with pytest.raises(DeclarationError, match=r"no context cooking \(there are: agents, "):
            domain.registry(("cooking",))


class TestServing:
    """A service of one context."""

    @pytest.fixture
    def registry(self) -> Registry:
        return domain.registry(("planning",))

    async def test_answers_its_own_and_no_other(self, bus: Bus) -> None:
        assert (await bus.call(ListTasks())).items == []
        with pytest.raises(NoRespondersError):
            await bus.nats.request("db.agents.list", b"{}", timeout=5)
