"""``fleetbus export``: the contract as documents, from the code itself."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetbus.cli.terminal import Failed, note, say

if TYPE_CHECKING:
    from bus.contract.catalogue import Catalogue


class Document(StrEnum):
    """What can be exported."""

    ASYNCAPI = "asyncapi"
    JSONSCHEMA = "jsonschema"


def export(
    document: Annotated[
        Document,
        typer.Argument(
            metavar="asyncapi|jsonschema", help="AsyncAPI 3.0, or JSON Schemas (2020-12)."
        ),
    ],
    *,
    context: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only this context, such as planning; otherwise all of them."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write to this file, not to standard output."
        ),
    ] = None,
) -> None:
    """Write the contract as a document, whole or of one context; no server is needed.

    jsonschema is one document: $defs holds every message once; `operations`
    and `events` name the request, reply, errors and data of each.

    Examples:
        fleetbus export asyncapi --output asyncapi.json
        fleetbus export asyncapi --context planning
        fleetbus export jsonschema | jq '.["$defs"].Task'
    """
    from importlib.metadata import version

    from bus.contract import asyncapi as _asyncapi
    from fleetbus import domain

    catalogue = domain.catalogue()
    if context is not None:
        _check_context(context, [known.name for known in catalogue.contexts])
    if document is Document.ASYNCAPI:
        made = _asyncapi.document(catalogue, version("fleetbus"), context)
    else:
        made = json_schemas(catalogue if context is None else catalogue.only(context))
    text = json.dumps(made, indent=2, ensure_ascii=False)
    if output is None:
        say(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise Failed(f"{output} cannot be written: {error.strerror}") from None
    note(f"wrote {output}")


def _check_context(name: str, known: list[str]) -> None:
    if name not in known:
        raise typer.BadParameter(
            f"there is no context {name}; there are {', '.join(known)}", param_hint="--context"
        )


def json_schemas(catalogue: Catalogue) -> dict[str, Any]:
    """Every message of some contexts in one JSON Schema document."""
    from importlib.metadata import version

    from bus.contract.errors import EVERYWHERE
    from bus.contract.schemas import DIALECT, definitions

    replies = dict.fromkeys(o.declared.reply for o in catalogue.operations)
    errors = dict.fromkeys(
        (*EVERYWHERE, *(error for o in catalogue.operations for error in o.declared.errors))
    )
    refs, schemas = definitions(
        [*catalogue.operations, *replies, *catalogue.events], errors, "#/$defs/{model}"
    )
    return {
        "$schema": DIALECT,
        "title": f"fleetbus {version('fleetbus')}",
        "operations": {
            o.declared.subject: {
                "request": {"$ref": refs[o]},
                "reply": {"$ref": refs[o.declared.reply]},
                "errors": [{"$ref": refs[e]} for e in (*o.declared.errors, *EVERYWHERE)],
                "events": [event.fact.type for event in o.declared.emits],
            }
            for o in catalogue.operations
        },
        "events": {event.fact.type: {"$ref": refs[event]} for event in catalogue.events},
        "$defs": schemas,
    }
