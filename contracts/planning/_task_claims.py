"""Tasks with their surroundings, as they are given to those who work on them."""

from pydantic import Field

from bus.contract import Reply
from contracts.planning._task import Task
from contracts.planning._task_parts import InitiativeBrief, PhaseBrief, Shortened, TaskBrief


class ClaimedTask(Reply):
    """A task with everything that an agent needs to begin."""

    task: Task
    phase: PhaseBrief | None
    """Its phase, or else the phase of the task above it."""
    initiative: InitiativeBrief | None
    dependencies: list[TaskBrief]
    """The tasks that it depends on, at most the first hundred."""
    shortened: list[Shortened] = Field(default=[])
    """What is missing or cut because the reply would otherwise be too large for one message: the
    phase's content first, then summaries, then lists, and finally long texts of the task itself,
    whose beginning is kept if there is room for it. Other operations return all of it."""


class ClaimedTasks(Reply):
    """The tasks that were claimed, in the order in which they should be done."""

    tasks: list[ClaimedTask]


class TaskContext(ClaimedTask):
    """A task with everything around it."""

    parent: TaskBrief | None
    children: list[TaskBrief]
    """Its children by position, at most the first hundred."""
