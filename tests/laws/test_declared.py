"""Laws of what a declaration answers or asks for: what gets, what lists, what must exist."""

from collections.abc import Iterator
from typing import Any, Literal

import pytest

from bus.contract.refusals import DeclarationError
from bus.handling.shape import QUERY
from bus.storage import TABLES, Listing, equal, one_of
from contracts.health import test_definitions
from contracts.health.schedules import ListSchedules, Schedule
from contracts.planning.tasks import Task
from fleetbus import domain
from tests.laws.declaring import CONTRACT, HANDLER, execute, forgotten

SEES_ONE = '''
class SeeTask(GetOf[Task], subject="db.tasks.see"):
    """See one."""
'''

SEES_MANY = '''
class SeeTasks(ListOf[Task], subject="db.tasks.see"):
    """See many."""

    status: TaskStatus | None = None
'''

REFERS = '''
class HailTask(Command[Task], subject="db.tasks.hail", errors=(InvalidReference,)):
    """Hail."""

    id: Id
    other_id: Ref[Task]
'''

HAILS = "@decider\ndef hail_task(command: HailTask, task: Task) -> Decision[Task]: ..."

GHOST = '''
class Ghost(Entity, not_found=TaskNotFound):
    """What is kept nowhere."""
'''


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    domain.registry()
    with forgotten():
        yield


class TestDeclared:
    """A GetOf and a ListOf need no function: of each, what they need instead."""

    @pytest.mark.parametrize("field", ["id: Name", "id: Id | None = None", "task_id: Id"])
    def test_get_wants_the_id_of_its_entity(self, field: str) -> None:
        with pytest.raises(DeclarationError, match="needs the field id, required, as Task has it"):
            execute(f"{SEES_ONE}\n    {field}", CONTRACT)

    def test_get_wants_its_entity(self) -> None:
        with pytest.raises(DeclarationError, match=r"SeeTask needs its entity: GetOf\[Task\]"):
            execute(SEES_ONE.replace("GetOf[Task]", "GetOf"), CONTRACT)

    def test_get_says_the_refusal_of_its_entity(self) -> None:
        see = execute(f"{SEES_ONE}\n    id: Id", CONTRACT)["SeeTask"]
        assert see.declared.errors == (Task.not_found,)
        assert see.declared.reply is Task

    def test_get_of_what_no_table_holds_stops_the_process(self) -> None:
        execute(f"{GHOST}\n{SEES_ONE.replace('Task]', 'Ghost]')}\n    id: Id", CONTRACT)
        with pytest.raises(DeclarationError, match="SeeTask needs a ghost: no table holds one"):
            domain.registry()

    def test_list_without_listing_stops_the_process(self) -> None:
        execute(SEES_MANY, CONTRACT)
        with pytest.raises(DeclarationError, match=r"no handler for SeeTasks \(.* with a Listing"):
            domain.registry()

    def test_list_is_answered_by_its_listing(self) -> None:
        see = execute(SEES_MANY, CONTRACT)["SeeTasks"]
        Listing(see, equal(TABLES[Task], "status"))
        handling = domain.registry().operations["db.tasks.see"].handling
        assert handling.shape is QUERY
        assert handling.dependencies == {"db"}

    @pytest.mark.parametrize("filtered", [[], ["status", "priority"]])
    def test_listing_has_a_condition_for_each_field(self, filtered: list[str]) -> None:
        see = execute(SEES_MANY, CONTRACT)["SeeTasks"]
        with pytest.raises(DeclarationError, match="and its fields differ in"):
            Listing(see, equal(TABLES[Task], *filtered))

    def test_listing_orders_by_columns(self) -> None:
        order = "Literal['-colour'] = '-colour'"
        see = execute(f"{SEES_MANY}\n    order: {order}", CONTRACT, Literal=Literal)["SeeTasks"]
        with pytest.raises(DeclarationError, match="SeeTasks orders by colour: no such column"):
            Listing(see, equal(TABLES[Task], "status"))

    def test_listing_of_what_no_table_holds_is_refused(self) -> None:
        see = execute(f"{GHOST}\n{SEES_MANY.replace('Task]', 'Ghost]')}", CONTRACT)["SeeTasks"]
        with pytest.raises(DeclarationError, match="SeeTasks lists what no table holds"):
            Listing(see)

    def test_listing_lies_within_what_the_id_names(self) -> None:
        see = execute(SEES_MANY, CONTRACT)["SeeTasks"]
        with pytest.raises(DeclarationError, match="SeeTasks has no id that its list lies within"):
            Listing(see, equal(TABLES[Task], "status"), within=Task)

    def test_there_is_one_listing(self) -> None:
        with pytest.raises(DeclarationError, match="ListSchedules has a Listing already"):
            Listing(ListSchedules, equal(TABLES[Schedule], "enabled"))


class TestOneOf:
    def test_checks_what_the_contract_allows(self) -> None:
        check = one_of("status", Literal["new", "old", "gone"], besides=["gone"])
        assert (check.name, str(check.sqltext)) == ("status", "status IN ('new', 'old')")

    @pytest.mark.parametrize(("allowed", "besides"), [(str, ""), (Literal["new"], ["old"])])
    def test_is_of_a_literal_and_its_values(self, allowed: Any, besides: list[str]) -> None:
        with pytest.raises(DeclarationError, match="status is one of a Literal, besides some of"):
            one_of("status", allowed, besides=besides)


class TestReferences:
    """What ``Ref`` names must exist for a command, and its function does not take it."""

    def test_is_needed_and_not_taken(self) -> None:
        hail = execute(REFERS, CONTRACT)["HailTask"]
        execute(HAILS, HANDLER, HailTask=hail)
        handling = domain.registry().operations["db.tasks.hail"].handling
        assert [need.field for need in handling.entities] == ["id"]
        assert [(need.field, need.entity) for need in handling.references] == [("other_id", Task)]
        assert [need.optional for need in handling.references] == [False]

    def test_of_an_entity_that_the_function_takes_is_no_other(self) -> None:
        hail = execute(REFERS.replace("other_id", "task_id"), CONTRACT)["HailTask"]
        execute(HAILS, HANDLER, HailTask=hail)
        assert domain.registry().operations["db.tasks.hail"].handling.references == ()

    def test_is_a_decider_s(self) -> None:
        hail = execute(REFERS, CONTRACT)["HailTask"]
        source = (
            "@handler\nasync def hail_task(command: HailTask, *, db: AsyncConnection) -> Task: ..."
        )
        execute(source, HANDLER, HailTask=hail)
        with pytest.raises(DeclarationError, match="HailTask has a Ref in other_id: only a dec"):
            domain.registry()

    def test_is_declared_to_be_refused(self) -> None:
        hail = execute(REFERS.replace("InvalidReference", "TaskNotFound"), CONTRACT)["HailTask"]
        execute(HAILS, HANDLER, HailTask=hail)
        with pytest.raises(DeclarationError, match="has a Ref: it declares InvalidReference"):
            domain.registry()

    def test_is_of_what_has_a_uuid(self) -> None:
        with pytest.raises(DeclarationError, match=r"Ref\[TestDefinition\]: its id is not a UUID"):
            execute("Ref[TestDefinition]", CONTRACT, TestDefinition=test_definitions.TestDefinition)
