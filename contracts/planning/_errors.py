"""Errors of dependencies, whatever depends on what."""

from typing import Annotated

from pydantic import Field

from contracts._errors import Conflict, NotFound, Unprocessable
from contracts._fields import Id


class DependencyCycle(Conflict, detail="this dependency would close a cycle of {entity}s"):
    """The dependency would close a cycle; nothing could ever begin."""

    entity: str
    path: list[Annotated[Id | str, Field(union_mode="left_to_right")]]
    """The ids along the cycle; each depends on the next, and the last is the first again.

    What the request itself makes is named by its ``ref``."""


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
