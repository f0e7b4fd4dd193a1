"""Laws of queries by id: what one may be handed, and how that is annotated."""

from collections.abc import Iterator
from datetime import datetime

import pytest

from bus.contract.refusals import DeclarationError
from bus.handling.shapes import HANDLERS
from bus.storage import CompanionRow
from contracts.agents.agents import Agent
from contracts.health import test_definitions, test_runs
from contracts.health.model_calls import ModelCall
from fleetbus import domain
from persistence.agents.tables import Credentials, Prompt
from tests.laws.declaring import CONTRACT, HANDLER, execute, forgotten

SEE = '''
class SeeTask(Query[Reply], subject="db.tasks.see", secret=True):
    """See."""

    {}
'''

ID, TOKEN = "id: Id", 'token: Annotated[Token, TokenOf("fbt")]'

OF_A_CALL = (
    "model_call: ModelCall, test_run: TestRun | None, test_definition: None | TestDefinition"
)

KNOWN = {
    "Agent": Agent,
    "Credentials": Credentials,
    "ModelCall": ModelCall,
    "Prompt": Prompt,
    "TestDefinition": test_definitions.TestDefinition,
    "TestRun": test_runs.TestRun,
}


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    domain.registry()
    with forgotten():
        yield


def define(field: str, takes: str) -> None:
    declared = execute(SEE.format(field), CONTRACT)
    given = KNOWN | {"SeeTask": declared["SeeTask"], "datetime": datetime}
    execute(f"@query\ndef see_task(query: SeeTask, {takes}) -> Reply: ...", HANDLER, **given)


@pytest.mark.parametrize(
    ("field", "takes"),
    [
        (ID, "agent: Agent"),
        (ID, "agent: Agent, prompt: Prompt | None"),
        (TOKEN, "agent: Agent | None, prompt: Prompt | None, *, now: datetime"),
        (ID, "agent: Agent, task: Task | None, prompt: Prompt | None"),
        (ID, "test_run: TestRun, test_definition: TestDefinition"),
        (ID, OF_A_CALL),
        (f"{ID}\n    {TOKEN}", "agent: Agent"),
    ],
)
def test_right_one_is_taken(field: str, takes: str) -> None:
    before = len(HANDLERS.by_operation)
    define(field, takes)
    assert len(HANDLERS.by_operation) == before + 1


@pytest.mark.parametrize(
    ("field", "takes", "mend"),
    [
        (ID, "prompt: Prompt | None", "takes the entity that its id or token names, first"),
        (
            ID,
            "agent: Agent, prompt: Prompt",
            "there may be no prompt: it is annotated Prompt | None",
        ),
        (ID, "agent: Agent, task: Task", "there may be no task: it is annotated Task | None"),
        (
            TOKEN,
            "model_call: ModelCall | None, test_run: TestRun",
            "there may be no test_run: it is annotated TestRun | None",
        ),
        (ID, "task: Task, agent: Agent | None", "nothing before agent has a field agent_id"),
        (ID, "task: Task, prompt: Prompt | None", "prompt lies beside its agent"),
        (ID, "agent: Agent, other: Credentials | None", "other lies beside its account"),
        (ID, "agent: str", "the parameter agent is an entity, or a row beside one"),
        ("name: Name", "agent: Agent", "SeeTask has no field id, nor one token"),
        (TOKEN.replace("]", "] | None = None"), "agent: Agent", "has no field id, nor one token"),
        (
            TOKEN,
            "test_definition: TestDefinition | None",
            "a token names no test_definition: its id is no UUID",
        ),
    ],
)
def test_wrong_one_is_refused_and_told_what_to_mend(field: str, takes: str, mend: str) -> None:
    with pytest.raises(DeclarationError) as refusal:
        define(field, takes)
    assert mend in str(refusal.value)


class TestTokens:
    def test_one_is_a_secret(self) -> None:
        source = SEE.format(TOKEN).replace(", secret=True", "")
        with pytest.raises(DeclarationError, match="needs secret=True: token is sensitive"):
            execute(source, CONTRACT)

    @pytest.mark.parametrize("prefix", ["", "f", "Fbs", "f_s", "fbs_", "much_too_long_for_one"])
    def test_its_prefix_is_a_short_word(self, prefix: str) -> None:
        with pytest.raises(DeclarationError, match="is no prefix of a token"):
            execute(SEE.format(TOKEN.replace("fbt", prefix)), CONTRACT)


class TestCompanions:
    def test_one_says_whose_it_is(self) -> None:
        with pytest.raises(DeclarationError, match="Lone needs owner="):
            type("Lone", (CompanionRow,), {"__tablename__": "lone", "__module__": __name__})

    def test_those_that_there_are(self) -> None:
        """Each has its owner's id for its own, and is gone with it."""
        assert (Prompt.owned_by, Credentials.owned_by.__name__) == (Agent, "Account")
        [key] = Prompt.__table__.c.id.foreign_keys
        assert (key.target_fullname, key.ondelete) == ("agents.agents.id", "CASCADE")
