"""What happens to keys."""

from datetime import datetime
from uuid import UUID

from bus.handling import Decision, decider, new_token, query, same_secret, secret_hash
from tests.bus.doors.contracts.doors.doors import Door
from tests.bus.doors.contracts.doors.keys import (
    CheckKey,
    CutKey,
    Key,
    KeyState,
    NewKey,
    ShowKey,
    Tag,
    state_at,
)
from tests.bus.doors.persistence.doors.tables import DoorPaint, KeyDetails


@decider
def cut_key(command: CutKey, *, new_id: UUID, now: datetime) -> Decision[Key]:
    key = Key.first(
        id=new_id, now=now, door_id=command.door_id, tags=[Tag(text="new")], more={"a": [1]}
    )
    token = new_token("dkey", key.id)
    details = []
    if command.holder is not None:
        details = [
            KeyDetails.first(
                id=key.id,
                now=now,
                secret_hash=secret_hash(token),
                holder=command.holder,
                about={"n": 1},
            )
        ]
    return Decision(key, reply=NewKey(key=key, token=token), beside=details)


@query
def check_key(
    query: CheckKey,
    key: Key | None,
    details: KeyDetails | None,
    door: Door | None,
    paint: DoorPaint | None,
    *,
    now: datetime,
) -> KeyState:
    if not same_secret(query.token, details.secret_hash if details else None):
        return state_at(now, None)
    assert details is not None
    assert details.about == {"n": 1}
    return state_at(
        now,
        key,
        *(details, door, paint),
        holder=details.holder,
        door=door.name if door else None,
        colour=paint.colour if paint else None,
    )


@query
def show_key(
    query: ShowKey,
    key: Key,
    details: KeyDetails | None,
    *,
    now: datetime,
) -> KeyState:
    return state_at(now, key, details, holder=details.holder if details else None)
