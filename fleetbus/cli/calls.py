"""``fleetbus call``: one request with raw JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from fleetbus.cli.addresses import Address, NatsUrl, nats_address
from fleetbus.cli.problems import Refused, problem_of
from fleetbus.cli.terminal import Failed, NoAnswerCame, note, print_json, run, say

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

OPERATIONS, DISCOVERY = "db.", "$SRV."
"""What subjects begin with that are requests; others would be messages to whoever listens."""

SHORTEST_ATTEMPT = 5.0
"""Seconds that one attempt may take at least, if there are as many."""


def call(
    subject: Annotated[
        str, typer.Argument(metavar="SUBJECT", help="The operation, db.<noun>.<verb>.")
    ],
    body: Annotated[
        str,
        typer.Argument(metavar="JSON | -", help="The request; - reads it from standard input."),
    ] = "{}",
    *,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Idempotency key: the same key with the same request is executed once. "
            "Without it each call has a new one.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.001, help="How long to wait, including retries."),
    ] = 30.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run the command and roll it back.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print the answer byte for byte, a refusal too.")
    ] = False,
    nats_url: NatsUrl = None,
) -> None:
    """Call an operation and print its reply as indented JSON.

    A request that may be tried again (429, 503, 504, no answer, nobody
    there) is sent again with the same key until the timeout, so nothing is
    done twice. A refusal goes to standard error, and the exit code is 1; it
    is 3 if no answer came.

    Examples:
        fleetbus call db.meta.operations
        fleetbus call db.tasks.list '{"status": "blocked"}'
        fleetbus call db.projects.create - --key import-7 < project.json
        fleetbus call db.tasks.list --raw | jq '.items[].name'
    """
    from fleetbus.cli.connection import is_subject

    if not is_subject(subject):
        raise typer.BadParameter(
            "a subject is words with dots between, without wildcards", param_hint="SUBJECT"
        )
    request = _request(body)
    headers = {"Fleet-Dry-Run": "true"} if dry_run else {"Nats-Msg-Id": key or _new_key()}
    answer = run(_call(nats_address(nats_url), subject, request, headers, timeout))
    _print(answer, raw=raw)
    if dry_run:
        note("dry run: nothing was stored")


def _request(body: str) -> bytes:
    text = sys.stdin.buffer.read() if body == "-" else body.encode(errors="surrogateescape")
    try:
        json.loads(text or b"{}")
    except ValueError as error:
        raise typer.BadParameter(f"this is not JSON: {error}", param_hint="JSON") from None
    return text


def _new_key() -> str:
    from bus.kit.ids import uuid7

    return str(uuid7())


def _print(answer: Msg, *, raw: bool) -> None:
    problem = problem_of(answer)
    if raw:
        sys.stdout.buffer.write(answer.data + b"\n")
    elif problem is None:
        try:
            print_json(json.loads(answer.data))
        except ValueError:
            say(answer.data.decode(errors="replace"))
    if problem is not None:
        raise typer.Exit(1) if raw else Refused(problem)
    if (answer.headers or {}).get("Fleet-Replayed") == "true":
        note("replayed: this is the reply of an earlier call with the same key")


async def _call(
    address: Address, subject: str, request: bytes, headers: dict[str, str], limit: float
) -> Msg:
    from nats.errors import MaxPayloadError

    from fleetbus.cli.connection import connected

    async with connected(address) as client:
        if not subject.startswith((OPERATIONS, DISCOVERY)):
            raise Failed(await _no_operation(client, subject))
        try:
            return await _answer(client, subject, request, headers, limit)
        except MaxPayloadError:
            raise Failed(
                f"the request has {len(request)} bytes; "
                f"{address} takes {client.max_payload} in one message"
            ) from None


async def _answer(
    client: Client, subject: str, request: bytes, headers: dict[str, str], limit: float
) -> Msg:
    """The first answer that is final; at the end of the time, the last one there was."""
    import asyncio
    import time

    from nats.errors import NoRespondersError

    end, pause = time.monotonic() + limit, 0.05
    answer: Msg | None = None
    nobody: str | None = None
    while (left := end - time.monotonic()) > 0:
        attempt = min(left, max(SHORTEST_ATTEMPT, limit / 2))
        headers["Fleet-Deadline"] = str(int((time.time() + attempt) * 1000))
        wait = pause
        try:
            answer = await client.request(subject, request, timeout=attempt, headers=headers)
        except TimeoutError:
            answer, nobody = None, None
        except NoRespondersError:
            if nobody is None:
                nobody = await _nobody(client, subject)
                note(f"{nobody}; trying again for {limit:g} s")
            answer = None
        else:
            nobody = None
            problem = problem_of(answer) or {}
            if not problem.get("retryable"):
                return answer
            wait = max(pause, problem.get("retry_after_ms", 0) / 1000)
        await asyncio.sleep(max(0.0, min(wait, end - time.monotonic())))
        pause = min(2 * pause, 1.0)
    if answer is None:
        raise NoAnswerCame(nobody or _silence(subject, headers, limit))
    return answer


def _silence(subject: str, headers: dict[str, str], limit: float) -> str:
    said = f"no answer from {subject} within {limit:g} s"
    if (key := headers.get("Nats-Msg-Id")) is None:
        return said
    return f"{said}; a command may have been executed\n  To be sure, repeat it with --key {key}"


async def _nobody(client: Client, subject: str) -> str:
    """Why nobody answers, while somebody may yet. Raises ``Failed`` where nobody ever will."""
    from fleetbus.cli.connection import NO_HANDLERS, operations

    offered = await operations(client)
    if offered is None:
        return f"nobody answers {subject}: {NO_HANDLERS}"
    if not subject.startswith(DISCOVERY) and all(each["subject"] != subject for each in offered):
        raise Failed(await _no_operation(client, subject))
    return f"nobody answers {subject} at the moment"


async def _no_operation(client: Client, subject: str) -> str:
    from fleetbus.cli.connection import operations
    from fleetbus.cli.terminal import did_you_mean

    known = [operation["subject"] for operation in await operations(client) or ()]
    meant = OPERATIONS + subject
    near = f"; did you mean {meant}?" if meant in known else did_you_mean(subject, known)
    return f"there is no operation {subject}{near}"
