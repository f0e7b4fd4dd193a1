"""What an event changed, seen against the one before it."""

from typing import Any

from contracts.events.events import Change, RecordedEvent, TimelineItem

_ALWAYS = {"version", "updated_at"}
"""They change with everything else."""


def item(before: RecordedEvent | None, event: RecordedEvent) -> TimelineItem:
    """An event in the story of its entity."""
    entity = _entity(event)
    version = entity.get("version")
    return TimelineItem(
        id=event.id,
        position=event.position,
        time=event.time,
        type=event.type,
        cause=event.cause,
        version=version if isinstance(version, int) else None,
        changes=_changes(_entity(before), entity) if before else [],
        facts={name: value for name, value in event.data.items() if name != _noun(event)},
        shortened=event.shortened or (before is not None and before.shortened),
    )


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    names = [name for name in {**before, **after} if name not in _ALWAYS]
    return [
        Change(field=name, before=before.get(name), after=after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _entity(event: RecordedEvent) -> dict[str, Any]:
    found = event.data.get(_noun(event))
    return found if isinstance(found, dict) else {}


def _noun(event: RecordedEvent) -> str:
    return event.type.partition(".")[0]
