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
    if not find_cycle(edges):
        return []
    for start in starts:
        ways = (find_path(edges, following, start) for following in edges.get(start, ()))
        if path := min(filter(None, ways), key=len, default=None):
            return [start, *path]
    return []


def find_cycle(edges: Edges[T]) -> list[T]:
    """A cycle, its last thing the first again; empty if there is none."""
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
    # Whatever is left depends on something that is left: whoever walks on comes round.
    walk = [one for one, count in left.items() if count][:1]
    while walk and walk[-1] not in walk[:-1]:
        walk.append(next(other for other in edges[walk[-1]] if left.get(other)))
    return walk[walk.index(walk[-1]) :] if walk else []
