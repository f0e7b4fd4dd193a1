"""What surrounds a task is given as far as there is room for it; what was cut is said.

A task is never kept from whoever asks for it because much surrounds it or it says much. What is
needed least goes first, and only as much of it as has to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from pydantic_core import to_json

from contracts.planning.tasks import ClaimedTask, Shortened, Task, TaskContext

C = TypeVar("C", bound=ClaimedTask)

MARK = "…"
"""What a text ends with that was cut."""

FRAME = 256
"""Bytes that are kept for what is around the task, and for the names of what was cut."""

_TEXTS: tuple[tuple[Shortened, str], ...] = (
    ("task.late_results", "late_results"),
    ("task.result", "result"),
    ("task.summary", "summary"),
    ("task.description", "description"),
)
"""What is cut of the task itself, once nothing else is left to be cut."""


def size(item: ClaimedTask) -> int:
    """How many bytes of a reply a task takes up with what surrounds it."""
    around = len(item.__pydantic_serializer__.to_json(item, exclude={"task"}))
    return around + len(item.task.encoded()) + len(',"task":')


def shorten(item: C, room: int) -> C:
    """The same where it fits into so many bytes; else as much of it as does."""
    room -= FRAME
    if size(item) <= room:
        return item
    for cut in _cuts(item):
        item = cut(item)
        if size(item) <= room:
            return item
    for name, field in _TEXTS:
        item = _with_task(item, name, field, room)
        if size(item) <= room:
            break
    return item


def _cuts(item: C) -> Iterator[Callable[[C], C]]:
    """What to leave out of what surrounds a task, one after the other."""
    if item.phase is not None and item.phase.content is not None:
        yield _without_content
    listed = ("children", "dependencies") if isinstance(item, TaskContext) else ("dependencies",)
    for name in ("parent", *listed):
        if getattr(item, name, None):
            yield partial(_without_summaries, name=name)
    for name in listed:
        if getattr(item, name):
            yield partial(_without_list, name=name)


def _without_content(item: C) -> C:
    assert item.phase is not None
    return _marked(item, "phase.content", phase=item.phase.model_copy(update={"content": None}))


def _without_summaries(item: C, name: Any) -> C:
    found = getattr(item, name)
    if isinstance(found, list):
        brief: Any = [each.model_copy(update={"summary": None}) for each in found]
    else:
        brief = found.model_copy(update={"summary": None})
    return item if brief == found else _marked(item, f"{name}.summary", **{name: brief})


def _without_list(item: C, name: Any) -> C:
    return _marked(item, name, **{name: []})


def _with_task(item: C, name: Shortened, field: str, room: int) -> C:
    """The item with less of one field of its task: of a text as much as there is room for."""
    value = getattr(item.task, field)
    if not value:
        return item
    nothing: Any = [] if field == "late_results" else None
    empty = _marked(item, name, task=_task(item.task, field, nothing))
    if not isinstance(value, str) or field == "result":
        return empty
    text = _head(value, room - size(empty) - len(f'"{MARK}"'.encode()))
    return empty if text is None else _marked(item, name, task=_task(item.task, field, text))


def _head(text: str, room: int) -> str | None:
    """As many characters of a text as fit, with the mark; None where there is room for none."""
    shortest, longest = 0, len(text)
    while shortest < longest:
        middle = (shortest + longest + 1) // 2
        if len(to_json(text[:middle])) <= room:
            shortest = middle
        else:
            longest = middle - 1
    return text[:shortest] + MARK if shortest else None


def _task(task: Task, field: str, value: Any) -> Task:
    return Task.trusted(task.__dict__ | {field: value})


def _marked(item: C, name: Any, **changed: Any) -> C:
    return item.model_copy(update={"shortened": [*item.shortened, name], **changed})
