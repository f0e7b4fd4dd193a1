"""Cycles among things that depend on each other."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Hashable)

Edges = Mapping[T, Sequence[T]]
"""What each thing depends on."""


def find_path(edges: Edges[T], start: T, goal: T) -> list[T]:
    """A shortest way from one thing to another along its dependencies; empty if there is none."""
    came_from: dict[T, T] = {}
    layer = [start]
    while layer and goal not in layer:
        following = []
        for one in layer:
            for other in edges.get(one, ()):
                if other != start and other not in came_from:
                    came_from[other] = one
                    following.append(other)
        layer = following
    if not layer:
        return []
    path = [goal]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return path[::-1]


def cycle_through(edges: Edges[T], starts: Iterable[T]) -> list[T]:
    """A shortest cycle through the first of these that is on one; empty if none of them is."""
    if not _waiting_for_ever(edges):
        return []
    for start in starts:
        ways = (find_path(edges, following, start) for following in edges.get(start, ()))
        if path := min(filter(None, ways), key=len, default=None):
            return [start, *path]
    return []


def find_cycle(edges: Edges[T]) -> list[T]:
    """A cycle, its last thing the first again; empty if there is none."""
    # Whatever is left depends on something that is left: whoever walks on comes round.
    left = _waiting_for_ever(edges)
    walk: dict[T, int] = {}
    one = next(iter(left), None)
    while one is not None and one not in walk:
        walk[one] = len(walk)
        one = next(other for other in edges[one] if other in left)
    return [] if one is None else [*list(walk)[walk[one] :], one]


def _waiting_for_ever(edges: Edges[T]) -> dict[T, int]:
    """What is on a cycle or depends on one, directly or not."""
    left = {one: len(others) for one, others in edges.items()}
    dependents: dict[T, list[T]] = {}
    for one, others in edges.items():
        for other in others:
            dependents.setdefault(other, []).append(one)
    free = [one for one in {*left, *dependents} if not left.get(one)]
    while free:
        for dependent in dependents.get(free.pop(), ()):
            left[dependent] -= 1
            if left[dependent] == 0:
                free.append(dependent)
    return {one: count for one, count in left.items() if count}
