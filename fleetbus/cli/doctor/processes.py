"""The handler processes: who answers, what piles up, which keys they have, what they notice."""

from __future__ import annotations

from collections import Counter
from typing import Any

from nats.aio.client import Client

from bus.storage.sealed import NOT_CONFIGURED
from fleetbus import domain
from fleetbus.cli.doctor.check import Check
from fleetbus.server.config import Settings
from fleetbus.server.detector.detector import ASK_SUBJECT
from fleetbus.server.discovery.asking import everybody
from fleetbus.server.discovery.srv import PROCESS_CONTEXT


async def handlers(client: Client) -> Check:
    """Ask who is there, as any client of a NATS service can."""
    answers = await everybody(client, "$SRV.PING")
    counts = Counter(answer["name"] for answer in answers)
    contexts = [c.name for c in domain.catalogue().contexts if c.operations]
    versions = ", ".join(sorted({answer["version"] for answer in answers}))
    serve = "start `fleetbus serve`"
    if not any(name in counts for name in contexts):
        return Check("handlers", False, "no handler process answers", serve)
    if silent := [name for name in contexts if name not in counts]:
        detail = f"nobody answers for {', '.join(silent)}"
        return Check("handlers", False, detail, f"{serve} of this version (there is {versions})")
    count = max(counts[name] for name in contexts)
    return Check(
        "handlers",
        True,
        f"{count} {'process answers' if count == 1 else 'processes answer'}, version {versions}",
    )


async def processes(client: Client) -> list[dict[str, Any]]:
    """What each handler process says of itself."""
    stats = await everybody(client, f"$SRV.STATS.{PROCESS_CONTEXT}")
    told = [endpoint["data"] for answer in stats for endpoint in answer["endpoints"]]
    return [data["process"] for data in told if "process" in data]


def load(processes: list[dict[str, Any]]) -> Check:
    """Whether requests, connections or events pile up."""
    relays = [process["relay"] for process in processes if process["relay"]]
    waiting = sum(use["waiting"] for process in processes for use in process["pools"].values())
    failed = sum(relay["publish_errors"] for relay in relays)
    shed = sum(process["shed"] for process in processes)
    detail = (
        f"{sum(process['in_flight'] for process in processes)} requests in flight, {shed} shed, "
        f"{waiting} wait for a connection, {failed} publish errors"
    )
    if trouble := next((found for relay in relays if (found := relay.get("trouble"))), ""):
        what, _, remedy = " ".join(trouble.split()).rpartition("; ")
        return Check("load", False, f"{detail}; the relay is stopped by: {what}", remedy)
    if last := next((relay["last_error"] for relay in relays if relay["last_error"]), ""):
        detail += f"; the relay's last interruption: {' '.join(last.split())}"
    blind = sum(process["outbox"] is None for process in processes)
    if blind:
        detail = f"{blind} of {len(processes)} processes cannot read the database; {detail}"
    return Check("load", not blind, detail, "look at the handlers' logs")


def keys(processes: list[dict[str, Any]]) -> Check:
    """Whether every process can read all credentials; of keys nothing but their ids is known."""
    name, told = "keys", [process["keys"] for process in processes if "keys" in process]
    rings = {tuple(keys["ids"]) for keys in told}
    wrong = sorted({keys["problem"] for keys in told} - {"", NOT_CONFIGURED})
    if wrong:
        remedy = "fix FLEETBUS_CREDENTIALS_KEYS or the file, and restart the handlers"
        return Check(name, False, f"credentials cannot be used: {wrong[0]}", remedy)
    if len(rings) > 1:
        remedy = "give every process the same keys in the same order, and restart it"
        return Check(name, False, "handler processes have different keys", remedy)
    written: dict[str, int] = next((c for keys in told if (c := keys["credentials"])), {})
    ids, count = next(iter(rings), ()), sum(written.values())
    if missing := sorted(written.keys() - set(ids)):
        detail = f"{sum(written[key] for key in missing)} of {count} credentials need "
        remedy = "put the key back behind the others, or set these credentials again"
        return Check(name, False, f"{detail}{', '.join(missing)}, which no process has", remedy)
    if not ids:
        return Check(name, True, "none, and no credentials that need one")
    outdated = count - written.get(ids[0], 0)
    detail = f"{len(ids)}, {ids[0]} encrypts; {count} credentials, {outdated} to be encrypted again"
    return Check(name, True, detail)


async def detection(client: Client, settings: Settings) -> Check:
    """Ask the handler processes whether they hear of lost connections."""
    name, leases = "detection", "only leases reveal crashes"
    answers = await everybody(client, ASK_SUBJECT)
    troubles = sorted({trouble for answer in answers if (trouble := answer["trouble"])})
    if troubles:
        remedy = "see what FLEETBUS_NATS_SYSTEM_URL names, and the handlers' logs"
        return Check(name, False, f"lost connections are not noticed: {troubles[0]}", remedy)
    if answers:
        count = f"{len(answers)} {'process' if len(answers) == 1 else 'processes'}"
        return Check(name, True, f"lost connections are noticed by {count}")
    if settings.watched is None:
        return Check(name, True, f"off, {leases}: FLEETBUS_NATS_SYSTEM_URL is not set")
    remedy = "give the handlers FLEETBUS_NATS_SYSTEM_URL, and start one without --no-detector"
    return Check(name, False, f"no handler process listens, {leases}", remedy)
