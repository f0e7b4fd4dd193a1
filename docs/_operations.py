"""The pages of the operations: one of each context, and an index of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import cleandoc
from itertools import groupby
from typing import Any

from bus.contract.catalogue import Catalogue, Context
from bus.contract.model import Reply
from bus.contract.operation import Operation
from bus.contract.page import Page
from bus.contract.schemas import definitions, example_of
from docs._markdown import anchor, joined, page, prose, table
from fleetbus.cli.schemas import fields

Operations = Iterable[type[Operation[Any]]]


def index_page(catalogue: Catalogue) -> str:
    """Every operation in a line, by context, with a link to what there is to know about it."""
    parts = []
    for context in catalogue.contexts:
        parts.append(f"## [{context.name}](operations/{context.name}.md)")
        parts.append(prose(context.summary))
        rows = [
            (_linked_subject(o, f"operations/{context.name}.md"), prose(o.declared.summary))
            for o in context.operations
        ]
        parts.append(table(("operation", "what it does"), rows))
    return page("Operations", "All operations of the service, by context.", parts)


def overview(catalogue: Catalogue) -> str:
    """All contexts with their nouns, a row each."""
    rows = []
    for context in catalogue.contexts:
        file = f"docs/operations/{context.name}.md"
        nouns = dict.fromkeys(operation.declared.noun for operation in context.operations)
        subjects = [f"[`db.{noun}`]({file}#{anchor(f'db.{noun}')})" for noun in nouns]
        name = f"[{context.name}]({file})"
        summary = prose(context.summary)
        rows.append((name, str(len(context.operations)), ", ".join(subjects), summary))
    return table(("context", ">operations", "of", "what it is about"), rows)


def _linked_subject(operation: type[Operation[Any]], file: str) -> str:
    subject = operation.declared.subject
    return f"[`{subject}`]({file}#{anchor(subject)})"


@dataclass(frozen=True)
class ContextPage:
    """Every operation of a context with its request, reply, errors and events, and their parts."""

    context: Context

    def __str__(self) -> str:
        parts = [prose(self.context.summary)]
        for noun, found in groupby(self.context.operations, key=lambda o: o.declared.noun):
            parts.append(f"## `db.{noun}`")
            parts.extend(self._operation(operation) for operation in found)
        if self.objects:
            parts.append("## Objects\n\nThe objects in requests and replies, by name.")
            parts.extend(self._object(name) for name in self.objects)
        lead = f"The operations of the context `{self.context.name}`."
        return page(f"Operations: {self.context.name}", lead, parts)

    @cached_property
    def schemas(self) -> Mapping[str, dict[str, Any]]:
        """The JSON Schema of every request, reply and part of them, by name."""
        operations = self.context.operations
        replies = dict.fromkeys(operation.declared.reply for operation in operations)
        _, schemas = definitions([*operations, *replies], [], "#/$defs/{model}")
        return schemas

    @cached_property
    def objects(self) -> list[str]:
        """The names of what replies and requests consist of."""
        requests = {operation.__name__ for operation in self.context.operations}
        return sorted(
            name
            for name, schema in self.schemas.items()
            if name not in requests and not name.startswith("Page_") and "properties" in schema
        )

    def _operation(self, operation: type[Operation[Any]]) -> str:
        declared = operation.declared
        example = json.dumps(example_of(operation), ensure_ascii=False)
        lines = [
            f"### `{declared.subject}`",
            f"A {declared.kind}. {prose(cleandoc(operation.__doc__ or ''))}",
            self._fields(self.schemas[operation.__name__], request=True),
            f"Replies with {self._reply(declared.reply)}.",
        ]
        if declared.errors:
            place = "../errors.md#declared-by-operations"
            lines.append(_list("Errors", (f"[`{e.type}`]({place})" for e in declared.errors)))
        if declared.emits:
            links = (
                f"[`{e.fact.type}`](../events.md#events{e.fact.entity})" for e in declared.emits
            )
            lines.append(_list("Emits", links))
        if declared.vital:
            place = "../architecture.md#what-is-vital"
            lines.append(f"[Vital]({place}): never waits behind other work.")
        if declared.kind == "command" and not declared.transactional:
            place = "../clients.md#several-commands-one-transaction"
            lines.append(f"[Not in a transaction]({place}).")
        if declared.expensive:
            place = "../architecture.md#what-is-expensive"
            lines.append(f"[Expensive]({place}): limited separately.")
        lines.append(f"```json\n{example}\n```")
        return joined(lines).rstrip()

    def _object(self, name: str) -> str:
        schema = self.schemas[name]
        summary = prose(str(schema.get("description", "")))
        return "\n\n".join(filter(None, [f"### {name}", summary, self._fields(schema)]))

    def _fields(self, schema: Mapping[str, Any], *, request: bool = False) -> str:
        found = fields({**schema, "$defs": self.schemas})
        if not found:
            return "It takes no fields: `{}`." if request else "It has no fields of its own."
        if not request:
            rows = [(f"`{f.name}`", self._linked(f.type), prose(f.description)) for f in found]
            return table(("field", "type", "meaning"), rows)
        return table(
            ("field", "type", "default", "meaning"),
            [
                (
                    f"`{f.name}`",
                    self._linked(f.type),
                    "required" if f.required else f"`{f.default}`" if f.default else "",
                    prose(f.description),
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


def _list(title: str, links: Iterable[str]) -> str:
    return f"{title}: {', '.join(links)}."
