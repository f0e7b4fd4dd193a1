"""The pages of events, errors and states, made from the declarations."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Iterator
from itertools import groupby

from bus.contract.catalogue import Catalogue
from bus.contract.errors import EVERYWHERE
from bus.contract.refusals import Refusal
from bus.handling.transitions import Transitions
from bus.running.registry import Registry
from docs._markdown import anchor, page, prose, table
from fleetbus import domain


def events_page(registry: Registry) -> str:
    """Every event with what it says and who emits it."""
    catalogue, emitters = registry.catalogue, registry.emitters()
    lead = "The events on `events.<entity>.<fact>.<entity id>`, and in the stream."
    more = (
        "The body of each is a JSON object with these fields; the one named after the entity "
        "holds it as it is after the change. A *reaction* follows in the same transaction from "
        "other events, a *job* is periodic work of the service. How to read events: "
        "[consuming events](consuming-events.md)."
    )
    parts = [more]
    for context in catalogue.contexts:
        if context.events:
            parts.append(f"## Service `{context.name}`")
        for entity, found in groupby(context.events, key=lambda event: event.fact.entity):
            rows = (
                (
                    f"`{event.fact.type}`",
                    prose(event.fact.summary),
                    ", ".join(f"`{field}`" for field in event.model_fields),
                    ", ".join(emitters[event]),
                )
                for event in found
            )
            facts = table(("type", "fact", "body", "emitted by"), rows)
            parts.append(f"### `events.{entity}`\n\n{facts}")
    return page("Events", lead, parts)


def events_overview(catalogue: Catalogue) -> str:
    """All contexts with the entities of their events, a row each."""
    rows = []
    for context in catalogue.contexts:
        entities = dict.fromkeys(event.fact.entity for event in context.events)
        subjects = [
            f"[`events.{entity}`](docs/events.md#{anchor(f'events.{entity}')})"
            for entity in entities
        ]
        if subjects:
            rows.append((context.name, str(len(context.events)), ", ".join(subjects)))
    return table(("context", ">events", "of"), rows)


def errors_page(catalogue: Catalogue) -> str:
    """Every error type with its status and details."""
    declared = {e for operation in catalogue.operations for e in operation.declared.errors}
    own = sorted(declared - set(EVERYWHERE), key=lambda error: (error.status, error.type))
    common: list[type[Refusal]] = sorted(EVERYWHERE, key=lambda error: error.status)
    lead = "Refusals and failures: problem documents (RFC 9457)."
    more = (
        "Each has `type`, `title`, `status`, `detail` and `retryable`, and the details named "
        "here beside them. How to handle them: [clients](clients.md)."
    )
    parts = [
        more,
        "## Of any operation\n\n" + _errors(common),
        "## Declared by operations\n\n" + _errors(own),
    ]
    return page("Errors", lead, parts)


def _errors(errors: Iterable[type[Refusal]]) -> str:
    rows = (
        (
            str(error.status),
            f"`{error.type}`",
            prose(error.title),
            ", ".join(f"`{name.rstrip('_')}`" for name in error.details),
            "yes" if error.retryable else "no",
        )
        for error in errors
    )
    return table(("status", "type", "title", "details", "retryable"), rows)


def states_page() -> str:
    """The state machines, drawn from the transition tables that the deciders use."""
    lead = "The actions that lead from one status to another."
    more = "How phases and initiatives follow from their contents: [containers](containers.md)."
    parts = [more]
    for machine in state_machines():
        edges = "\n".join(
            f"    {before} --> {after}: {action}" for before, action, after in machine.edges()
        )
        starts = "\n".join(f"    [*] --> {status}" for status in machine.initial)
        parts.append(f"## {machine.noun}\n\n```mermaid\nstateDiagram-v2\n{starts}\n{edges}\n```")
        if machine.more:
            parts.append(machine.more.strip())
    return page("States", lead, parts)


def state_machines() -> Iterator[Transitions]:
    """Every transition table of every context."""
    root = importlib.import_module(domain.HANDLERS)
    for folder in pkgutil.iter_modules(root.__path__):
        name = f"{domain.HANDLERS}.{folder.name}.states"
        if folder.ispkg and importlib.util.find_spec(name):
            module = importlib.import_module(name)
            yield from (v for v in vars(module).values() if isinstance(v, Transitions))
