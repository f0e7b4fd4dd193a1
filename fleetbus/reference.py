"""The reference pages of the documentation, made from the declarations: ``make docs``."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import cleandoc
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import AliasChoices

from bus.contract.catalogue import Catalogue
from bus.contract.errors import EVERYWHERE
from bus.contract.model import Reply
from bus.contract.operation import Operation
from bus.contract.page import Page
from bus.contract.refusals import Refusal
from bus.contract.schemas import definitions, example_of
from bus.handling.transitions import Transitions
from fleetbus import domain
from fleetbus.cli.schemas import fields, type_of
from fleetbus.server.config import Settings

BEGIN = "<!-- begin generated: {name} -->"
END = "<!-- end generated: {name} -->"

FIRST_SETTINGS = (
    "database_url",
    "nats_url",
    "max_in_flight",
    "pool_write",
    "pool_read",
    "request_timeout",
    "idempotency_retention",
    "stream_replicas",
    "stop_timeout",
    "log_level",
)
"""The settings that the README names; the page on configuration has all of them."""


@dataclass(frozen=True)
class Reference:
    """What the pages are made from."""

    catalogue: Catalogue

    @cached_property
    def schemas(self) -> Mapping[str, dict[str, Any]]:
        """The JSON Schema of every request, reply and part of them, by name."""
        operations = self.catalogue.operations
        replies = dict.fromkeys(operation.declared.reply for operation in operations)
        _, schemas = definitions([*operations, *replies], [], "#/$defs/{model}")
        return schemas

    @cached_property
    def objects(self) -> list[str]:
        """The names of what replies and requests consist of."""
        requests = {operation.__name__ for operation in self.catalogue.operations}
        return sorted(
            name
            for name, schema in self.schemas.items()
            if name not in requests and not name.startswith("Page_") and "properties" in schema
        )

    def operations_page(self) -> str:
        """Every operation with its request, reply, errors and events, and their parts."""
        parts = [_head("Operations", "What the service can be asked, by context and noun.")]
        for context in self.catalogue.contexts:
            parts.append(f"## Service `{context.name}`\n\n{_markdown(context.summary)}")
            for noun, found in groupby(context.operations, key=lambda o: o.declared.noun):
                parts.append(f"### `db.{noun}`")
                parts.extend(self._operation(operation) for operation in found)
        parts.append("## Objects\n\nWhat requests and replies consist of, by name.")
        parts.extend(self._object(name) for name in self.objects)
        return _joined(parts)

    def _operation(self, operation: type[Operation[Any]]) -> str:
        declared = operation.declared
        example = json.dumps(example_of(operation), ensure_ascii=False)
        lines = [
            f"#### `{declared.subject}`",
            f"A {declared.kind}. {_markdown(cleandoc(operation.__doc__ or ''))}",
            self._fields(self.schemas[operation.__name__], request=True),
            f"Replies with {self._reply(declared.reply)}.",
        ]
        if declared.errors:
            kinds = [f"[`{e.type}`](errors.md#declared-by-operations)" for e in declared.errors]
            lines.append(f"Errors: {', '.join(kinds)}.")
        if declared.emits:
            lines.append(
                "Tells: "
                + ", ".join(
                    f"[`{e.fact.type}`](events.md#events{e.fact.entity})" for e in declared.emits
                )
                + "."
            )
        if declared.vital:
            lines.append("[Vital](architecture.md#what-is-vital): never waits behind other work.")
        if declared.kind == "command" and not declared.transactional:
            lines.append("[Not in a transaction](clients.md#several-commands-one-transaction).")
        if declared.expensive:
            lines.append("[Expensive](architecture.md#what-is-expensive): limited separately.")
        lines.append(f"```json\n{example}\n```")
        return "\n\n".join(lines)

    def _object(self, name: str) -> str:
        schema = self.schemas[name]
        summary = _markdown(str(schema.get("description", "")))
        return "\n\n".join(filter(None, [f"### {name}", summary, self._fields(schema)]))

    def _fields(self, schema: Mapping[str, Any], *, request: bool = False) -> str:
        found = fields({**schema, "$defs": self.schemas})
        if not found:
            return "It takes no fields: `{}`." if request else "It has no fields of its own."
        if not request:
            rows = [(f"`{f.name}`", self._linked(f.type), _markdown(f.description)) for f in found]
            return _table(("field", "type", "meaning"), rows)
        return _table(
            ("field", "type", "default", "meaning"),
            [
                (
                    f"`{f.name}`",
                    self._linked(f.type),
                    "required" if f.required else f"`{f.default}`" if f.default else "",
                    _markdown(f.description),
                )
                for f in found
            ],
        )

    def _reply(self, reply: type[Reply]) -> str:
        generic = reply.__pydantic_generic_metadata__
        if generic["origin"] is Page:
            return f"a page of {self._linked(generic['args'][0].__name__)}"
        return self._linked(reply.__name__)

    def _linked(self, words: str) -> str:
        known = set(self.objects)
        return re.sub(
            r"\w+", lambda w: f"[{w[0]}](#{w[0].lower()})" if w[0] in known else w[0], words
        )

    def events_page(self) -> str:
        """Every event with what it says and who tells it."""
        tellers: dict[str, list[str]] = {}
        for operation in self.catalogue.operations:
            for event in operation.declared.emits:
                tellers.setdefault(event.fact.type, []).append(f"`{operation.declared.subject}`")
        lead = "The events on `events.<entity>.<fact>.<entity id>`, and in the stream."
        more = (
            "The body of each is a JSON object with these fields; the one named after the entity "
            "holds it as it is after the change. Besides the operations named, reactions and the "
            "sweeper may emit it. How to read them: [consuming events](consuming-events.md)."
        )
        parts = [_head("Events", lead), more]
        for context in self.catalogue.contexts:
            if context.events:
                parts.append(f"## Service `{context.name}`")
            for entity, found in groupby(context.events, key=lambda event: event.fact.entity):
                rows = (
                    (
                        f"`{event.fact.type}`",
                        _markdown(event.fact.summary),
                        ", ".join(f"`{field}`" for field in event.model_fields),
                        ", ".join(tellers.get(event.fact.type, ["a reaction or the sweeper"])),
                    )
                    for event in found
                )
                table = _table(("type", "fact", "body", "emitted by"), rows)
                parts.append(f"### `events.{entity}`\n\n{table}")
        return _joined(parts)

    def errors_page(self) -> str:
        """Every error type with its status and details."""
        declared = {e for operation in self.catalogue.operations for e in operation.declared.errors}
        own = sorted(declared - set(EVERYWHERE), key=lambda error: (error.status, error.type))
        common: list[type[Refusal]] = sorted(EVERYWHERE, key=lambda error: error.status)
        lead = "Refusals and failures: problem documents (RFC 9457)."
        more = (
            "Each has `type`, `title`, `status`, `detail` and `retryable`, and the details named "
            "here beside them. What to do about them: [clients](clients.md)."
        )
        return _joined(
            [
                _head("Errors", lead),
                more,
                "## Of any operation\n\n" + _errors(common),
                "## Declared by operations\n\n" + _errors(own),
            ]
        )

    def overview(self) -> str:
        """All nouns with their verbs, a row each."""
        rows = []
        for context in self.catalogue.contexts:
            for noun, found in groupby(context.operations, key=lambda o: o.declared.noun):
                verbs: dict[str, list[str]] = {"command": [], "query": []}
                for operation in found:
                    verbs[operation.declared.kind].append(operation.declared.verb)
                name = f"[`db.{noun}`](docs/operations.md#db{noun})"
                rows.append((context.name, name, *(", ".join(v) for v in verbs.values())))
        return _table(("service", "subject", "commands", "queries"), rows)

    def facts(self) -> str:
        """All entities with the facts that are told of them, a row each."""
        rows = [
            (
                f"[`events.{entity}`](docs/events.md#events{entity})",
                ", ".join(event.fact.type.partition(".")[2] for event in found),
            )
            for context in self.catalogue.contexts
            for entity, found in groupby(context.events, key=lambda event: event.fact.entity)
        ]
        return _table(("subject", "facts"), rows)


def states_page() -> str:
    """The state machines, drawn from the transition tables that the deciders use."""
    lead = "Which action leads from which status to which."
    more = "What a phase or an initiative is, given what it holds: [containers](containers.md)."
    parts = [_head("States", lead), more]
    for machine in state_machines():
        edges = "\n".join(
            f"    {before} --> {after}: {action}" for before, action, after in machine.edges()
        )
        starts = "\n".join(f"    [*] --> {status}" for status in machine.initial)
        parts.append(f"## {machine.noun}\n\n```mermaid\nstateDiagram-v2\n{starts}\n{edges}\n```")
        if machine.more:
            parts.append(machine.more.strip())
    return _joined(parts)


def state_machines() -> Iterator[Transitions]:
    """Every transition table of every context."""
    root = importlib.import_module(domain.HANDLERS)
    for folder in pkgutil.iter_modules(root.__path__):
        name = f"{domain.HANDLERS}.{folder.name}.states"
        if folder.ispkg and importlib.util.find_spec(name):
            module = importlib.import_module(name)
            yield from (v for v in vars(module).values() if isinstance(v, Transitions))


def configuration_page() -> str:
    """Every setting."""
    lead = "The settings of a handler process, as environment variables."
    more = (
        "`fleetbus serve`, `migrate` and `doctor` read them, and so does `up`, which has its own "
        "servers. A flag of the command overrides the variable. `FLEETBUS_WORKERS` is the default "
        "of `--workers`. `call`, `events`, `describe` and `import` read `NATS_URL`, and `events` "
        "also `FLEETBUS_STREAM`. Times are in seconds. The two addresses are also read from "
        "`FLEETBUS_DATABASE_URL` and `FLEETBUS_NATS_URL`."
    )
    return _joined([_head("Configuration", lead), more, settings_table(Settings.model_fields)])


def settings_table(names: Iterable[str]) -> str:
    """Settings with their types and defaults, a row each."""
    schemas = Settings.model_json_schema(by_alias=False)["properties"]
    return _table(
        ("variable", "type", "default", "meaning"),
        [
            (
                f"`{variable(name)}`",
                type_of({key: v for key, v in schemas[name].items() if key != "title"}, {}),
                f"`{_default(Settings.model_fields[name].default)}`",
                _markdown(Settings.model_fields[name].description or ""),
            )
            for name in names
        ],
    )


def variable(name: str) -> str:
    """The environment variable of a setting."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"FLEETBUS_{name.upper()}"


def pages() -> dict[str, str]:
    """The content of every generated page under ``docs/``."""
    reference = Reference(domain.catalogue())
    return {
        "operations.md": reference.operations_page(),
        "events.md": reference.events_page(),
        "errors.md": reference.errors_page(),
        "states.md": states_page(),
        "configuration.md": configuration_page(),
    }


def parts() -> dict[str, str]:
    """The generated parts of the README, by the names of their markers."""
    reference = Reference(domain.catalogue())
    return {
        "operations": reference.overview(),
        "events": reference.facts(),
        "configuration": settings_table(FIRST_SETTINGS),
    }


def insert(text: str, name: str, content: str) -> str:
    """A text with the part between its markers replaced."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def write(root: Path) -> None:
    """Bring the generated pages and the generated parts of the README up to date."""
    for name, content in pages().items():
        (root / "docs" / name).write_text(content, encoding="utf-8")
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, content in parts().items():
        text = insert(text, name, content)
    readme.write_text(text, encoding="utf-8")


def _errors(errors: Iterable[type[Refusal]]) -> str:
    rows = (
        (
            str(error.status),
            f"`{error.type}`",
            _markdown(error.title),
            ", ".join(f"`{name.rstrip('_')}`" for name in error.details),
            "yes" if error.retryable else "no",
        )
        for error in errors
    )
    return _table(("status", "type", "title", "details", "retryable"), rows)


def _default(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _markdown(text: str) -> str:
    """A docstring's text in Markdown."""
    return text.replace("``", "`")


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(parts) + "\n"


def _head(title: str, lead: str) -> str:
    return f"# {title}\n\n{lead} This page is made from the declarations by `make docs`."


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
