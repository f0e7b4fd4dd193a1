"""Refusals as a person reads them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fleetbus.cli.terminal import Failed, printable

if TYPE_CHECKING:
    from nats.aio.msg import Msg


class Refused(Failed):
    """A request was refused; the problem document says why."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__("\n".join(lines(problem)))
        self.problem = problem


def problem_of(message: Msg) -> dict[str, Any] | None:
    """The problem document that an answer is, None where it is a reply."""
    headers = message.headers or {}
    if (code := headers.get("Nats-Service-Error-Code")) is None:
        return None
    try:
        problem = json.loads(message.data)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": headers.get("Nats-Service-Error", "")}
    return {"status": code} | problem


def lines(problem: dict[str, Any]) -> list[str]:
    """Status, type and title; the detail; each field that is wrong; whether to try again."""
    title, detail = problem.get("title", ""), str(problem.get("detail", ""))
    head = " ".join(str(problem[key]) for key in ("status", "type") if problem.get(key))
    found = [f"refused: {head}{': ' if title else ''}{title}"]
    fields = _field_errors(problem)
    if detail and detail != title and not fields:
        found.append(f"  {printable(detail)}")
    found += [f"  {printable(line)}" for line in fields]
    if problem.get("retryable"):
        found.append("  Nothing was stored; trying again may succeed.")
    return found


def _field_errors(problem: dict[str, Any]) -> list[str]:
    errors = problem.get("errors")
    if not isinstance(errors, list):
        return []
    return [
        f"{error.get('field') or 'the request'}: {error.get('message', '')}"
        for error in errors
        if isinstance(error, dict)
    ]
