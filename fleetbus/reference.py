"""The reference pages of the documentation, made from the declarations: ``make docs``."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import handlers
from contracts._catalogue import Catalogue, Context, load
from contracts._declare import Operation
from contracts._errors import Refusal
from contracts.errors import EVERYWHERE
from handlers._states import Transitions

BEGIN = "<!-- begin generated: {name} -->"
END = "<!-- end generated: {name} -->"


def operations_table(context: Context) -> str:
    """The operations of a context, one row each."""
    rows = (
        (f"`{o.declared.subject}`", o.declared.kind, o.declared.summary) for o in context.operations
    )
    return _table(("subject", "kind", "what it does"), rows)


def overview(catalogue: Catalogue) -> str:
    """All contexts with their operations."""
    parts = [
        f"**`{context.name}`**: {context.summary}\n\n{operations_table(context)}"
        for context in catalogue.contexts
        if context.operations
    ]
    return "\n\n".join(parts)


def operations_page(catalogue: Catalogue) -> str:
    """Every operation with its request, reply, errors and events."""
    parts = [_head("Operations", "What may be asked of the service, by context.")]
    for context in catalogue.contexts:
        parts.append(f"## `{context.name}`\n\n{context.summary}")
        parts.extend(_operation(operation) for operation in context.operations)
    return "\n\n".join(parts) + "\n"


def events_page(catalogue: Catalogue) -> str:
    """Every event with what it says and who tells it."""
    tellers: dict[str, list[str]] = {}
    for operation in catalogue.operations:
        for event in operation.declared.emits:
            tellers.setdefault(event.fact.type, []).append(f"`{operation.declared.subject}`")
    parts = [_head("Events", "What is told on `events.<type>.<entity id>`.")]
    for context in catalogue.contexts:
        if not context.events:
            continue
        rows = (
            (
                f"`{event.fact.type}`",
                event.fact.summary,
                ", ".join(f"`{field}`" for field in event.model_fields),
                ", ".join(tellers.get(event.fact.type, ["reactions and the sweeper"])),
            )
            for event in context.events
        )
        table = _table(("type", "fact", "body", "told by"), rows)
        parts.append(f"## `{context.name}`\n\n{table}")
    return "\n\n".join(parts) + "\n"


def errors_page(catalogue: Catalogue) -> str:
    """Every error type with its status and details."""
    declared = {error for operation in catalogue.operations for error in operation.declared.errors}
    own = sorted(declared - set(EVERYWHERE), key=lambda error: (error.status, error.type))
    common: list[type[Refusal]] = list(EVERYWHERE)
    everywhere = sorted(common, key=lambda error: error.status)
    return (
        "\n\n".join(
            [
                _head("Errors", "Refusals and failures: problem documents (RFC 9457)."),
                "## Of any operation\n\n" + _errors(everywhere),
                "## Declared by operations\n\n" + _errors(own),
            ]
        )
        + "\n"
    )


def states_page() -> str:
    """The state machines, drawn from the transition tables that the deciders use."""
    parts = [_head("States", "Which action leads from which status to which.")]
    for machine in state_machines():
        edges = "\n".join(
            f"    {before} --> {after}: {action}" for before, action, after in machine.edges()
        )
        starts = "\n".join(f"    [*] --> {status}" for status in machine.initial)
        parts.append(f"## {machine.noun}\n\n```mermaid\nstateDiagram-v2\n{starts}\n{edges}\n```")
    return "\n\n".join(parts) + "\n"


def state_machines() -> Iterator[Transitions]:
    """Every transition table of every context."""
    for folder in pkgutil.iter_modules(handlers.__path__):
        name = f"handlers.{folder.name}._states"
        if folder.ispkg and importlib.util.find_spec(name):
            module = importlib.import_module(name)
            yield from (v for v in vars(module).values() if isinstance(v, Transitions))


def pages() -> dict[str, str]:
    """The content of every generated page under ``docs/``."""
    catalogue = load()
    return {
        "operations.md": operations_page(catalogue),
        "events.md": events_page(catalogue),
        "errors.md": errors_page(catalogue),
        "states.md": states_page(),
    }


def insert(text: str, name: str, content: str) -> str:
    """A text with the part between its markers replaced."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def write(root: Path) -> None:
    """Bring the generated pages and the table in the README up to date."""
    for name, content in pages().items():
        (root / "docs" / name).write_text(content)
    readme = root / "README.md"
    readme.write_text(insert(readme.read_text(), "operations", overview(load())))


def _operation(operation: type[Operation[Any]]) -> str:
    declared = operation.declared
    lines = [f"### `{declared.subject}`", declared.summary]
    fields = [
        (
            f"`{name}`",
            "yes" if field.is_required() else "",
            _kind(operation, name),
            _doc(operation, name),
        )
        for name, field in operation.model_fields.items()
    ]
    if fields:
        lines.append(_table(("field", "required", "type", "meaning"), fields))
    lines.append(f"Replies with `{_name(declared.reply)}`.")
    if declared.errors:
        lines.append("Errors: " + ", ".join(f"`{error.type}`" for error in declared.errors) + ".")
    if declared.emits:
        lines.append(
            "Tells: " + ", ".join(f"`{event.fact.type}`" for event in declared.emits) + "."
        )
    return "\n\n".join(lines)


def _kind(operation: type[Operation[Any]], name: str) -> str:
    schema = operation.model_json_schema()
    return _words(schema["properties"][name], schema.get("$defs", {}))


def _words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return "any JSON" if name == "JsonValue" else f"`{name}`"
    if "anyOf" in schema:
        return " or ".join(_words(option, definitions) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return "list of " + _words(schema.get("items", {}), definitions)
    return str(schema.get("format") or schema.get("type", "any"))


def _doc(operation: type[Operation[Any]], name: str) -> str:
    description = operation.model_json_schema()["properties"][name].get("description", "")
    return " ".join(description.split())


def _name(model: type[Any]) -> str:
    return model.__name__.replace("[", "<").replace("]", ">")


def _errors(errors: Iterable[type[Refusal]]) -> str:
    rows = (
        (
            str(error.status),
            f"`{error.type}`",
            error.title,
            ", ".join(f"`{name.rstrip('_')}`" for name in error.details),
            "yes" if error.retryable else "no",
        )
        for error in errors
    )
    return _table(("status", "type", "title", "details", "retryable"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _head(title: str, lead: str) -> str:
    return f"# {title}\n\n{lead} This page is made from the declarations by `make docs`."


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
