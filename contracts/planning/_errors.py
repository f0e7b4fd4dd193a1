"""Errors of dependencies, whatever depends on what."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from bus.contract import Conflict, Id, NotFound, Unprocessable

Named = Annotated[Id | str, Field(union_mode="left_to_right")]
"""An id, or the ``ref`` of what a request makes."""


class Waiting(BaseModel):
    """A task or a phase on a cycle."""

    entity: Literal["task", "phase"]
    id: Named


class DependencyCycle(Conflict, detail="this would close a cycle: {entity}s would wait for ever"):
    """What waits for what would be a cycle, over tasks and phases; nothing on it could begin."""

    entity: str
    """What the request is about, task or phase."""
    path: list[Named]
    """The ids along the cycle; each waits for the next, and the last is the first again.

    What the request itself makes is named by its ``ref``."""
    nodes: list[Waiting] | None = None
    """The same, each with what it is. A task waits for what it depends on, for what the tasks above
    it wait for and for its phase, a phase for the phases that it depends on and for its tasks."""


class InitiativeClosed(Conflict, detail="initiative {id} is {initiative_status}"):
    """The initiative is archived; nothing is added to it until it is unarchived."""

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
    """The agent has come back as another process since; this one speaks for it no more."""

    id: Id
    incarnation: int
    current_incarnation: int
    agent_status: str
