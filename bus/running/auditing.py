"""Collects what functions put on record, until it is known whether their commands keep anything."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

import pydantic_core
from pydantic import BaseModel

from bus.contract.entity import Entity
from bus.contract.sensitive import sensitive_texts
from bus.handling.auditing import Detail
from bus.kit.ids import uuid7_hex
from bus.running.calls import Call

MAX_DETAIL: Final = 4096
"""Bytes that the detail of one record may have: it is no place for bulk."""

SHORTEST_SECRET: Final = 8
"""Characters from which a secret is looked for in a detail: shorter ones are in many a word."""

_KIND: Final = re.compile(r"[a-z][a-z_]*\.[a-z][a-z_]*")


class Records:
    """What one command puts on record."""

    __slots__ = ("_call", "_given", "rows")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._given: list[str] = []
        self.rows: list[bytes] = []
        """Rows for the table, each a JSON object."""

    def audit(
        self, kind: str, /, *, entity: Entity | None = None, ip: str | None = None, **detail: Detail
    ) -> None:
        """Record this; see ``Audit``."""
        if not _KIND.fullmatch(kind):
            raise ValueError("what is put on record is called <what>.<happened>")
        encoded = pydantic_core.to_json(detail)
        if len(encoded) > MAX_DETAIL:
            raise ValueError(f"the detail of {kind} has {len(encoded)} bytes of {MAX_DETAIL}")
        head = {
            "id": uuid7_hex(),
            "actor": self._call.caller or None,
            "kind": kind,
            "entity": None if entity is None else entity.noun,
            "entity_id": None if entity is None else str(entity.id),
            "ip": None if ip is None else str(ipaddress.ip_address(ip)),
        }
        self.rows.append(pydantic_core.to_json(head)[:-1] + b',"detail":' + encoded + b"}")
        self._given += [value for value in detail.values() if isinstance(value, str)]

    def require_no_secrets(self, reply: Any) -> None:
        """Fail a command that put a secret of its request or reply on record: it is a bug."""
        messages = [one for one in (self._call.message, reply) if isinstance(one, BaseModel)]
        for message in messages if self._given else []:
            for secret in sensitive_texts(message):
                if len(secret) >= SHORTEST_SECRET and any(secret in one for one in self._given):
                    raise ValueError("what was put on record holds a secret")
