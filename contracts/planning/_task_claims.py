"""Tasks with what surrounds them, as whoever works on them gets them."""

from pydantic import Field

from bus.contract import Reply
from contracts.planning._task import Task
from contracts.planning._task_parts import InitiativeBrief, PhaseBrief, Shortened, TaskBrief


class ClaimedTask(Reply):
    """A task with what an agent needs to begin."""

    task: Task
    phase: PhaseBrief | None
    """Its phase, or else the one that the task above it is in."""
    initiative: InitiativeBrief | None
    dependencies: list[TaskBrief]
    """What it depends on, the first hundred."""
    shortened: list[Shortened] = Field(default=[])
    """What is missing or cut, since the reply would have become too large for one message: the
    phase's content first, then summaries, then lists, at last long texts of the task itself, of
    which the beginning is kept where there is room for it. Other operations have all of it."""


class ClaimedTasks(Reply):
    """The tasks that were claimed, in the order in which they should be done."""

    tasks: list[ClaimedTask]


class TaskContext(ClaimedTask):
    """A task with everything around it."""

    parent: TaskBrief | None
    children: list[TaskBrief]
    """Its children by position, the first hundred."""
