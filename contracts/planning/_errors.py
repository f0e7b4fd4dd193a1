"""Errors about dependencies, of tasks and of phases alike."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from bus.contract import Conflict, Id, NotFound, Unprocessable

Named = Annotated[Id | str, Field(union_mode="left_to_right")]
"""An id, or the ``ref`` of something that a request creates."""


PlanEntity = Literal["task", "phase"]


class Waiting(BaseModel):
    """A task or a phase on a cycle."""

    entity: PlanEntity
    id: Named


class DependencyCycle(Conflict, detail="this would close a cycle: {entity}s would wait for ever"):
    """The dependencies of tasks and phases would form a cycle; nothing on it could ever begin."""

    entity: str
    """What the request is about: a task or a phase."""
    path: list[Named]
    """The ids along the cycle; each waits for the next, and the last is the first again.

    Anything that the request itself creates is named by its ``ref``."""
    nodes: list[Waiting] | None = None
    """The same cycle, each id with its kind. A task waits for its own dependencies, for those of
    the tasks above it and for its phase; a phase waits for its dependencies and for its tasks."""


class InitiativeClosed(Conflict, detail="initiative {id} is {initiative_status}"):
    """The initiative is archived; nothing can be added to it until it is unarchived."""

    id: Id
    initiative_status: str


class DifferentInitiatives(
    Unprocessable, detail="{entity} {id} and {entity} {other_id} belong to different initiatives"
):
    """Both ends of a dependency must belong to the same initiative."""

    entity: str
    id: Id
    other_id: Id


class DependencyNotFound(NotFound, detail="{id} does not depend on {depends_on}"):
    """There is no such dependency."""

    id: Id
    depends_on: Id


class StaleIncarnation(
    Conflict, detail="agent {id} is at incarnation {current_incarnation}, not {incarnation}"
):
    """The agent has come back as another process since; this one no longer speaks for it."""

    id: Id
    incarnation: int
    current_incarnation: int
    agent_status: str
