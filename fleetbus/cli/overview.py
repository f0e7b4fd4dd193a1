"""What ``fleetbus --help`` prints.

It is drawn here, in the style of the help of each command: the library that draws that takes longer
to load than everything else together.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import Any

import typer
from typer.core import TyperGroup, TyperOption

from fleetbus.cli.arguments import take_as_they_are

LEAST_WIDTH = 40


class Overview(TyperGroup):
    """A group of commands, shown in panels."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Usage, text, options, and the commands of each panel."""
        width = max(LEAST_WIDTH, shutil.get_terminal_size().columns)
        lines = ["", f" {self.get_usage(ctx)}", "", *_text(self.help or "", width - 2), ""]
        options = [_option(one) for one in self.get_params(ctx) if isinstance(one, TyperOption)]
        lines += _panel("Options", options, width)
        commands = self._commands(ctx)
        longest = max(len(name) for rows in commands.values() for name, _ in rows)
        for title, rows in commands.items():
            lines += _panel(title, [(name.ljust(longest), text) for name, text in rows], width)
        formatter.write("\n".join(lines))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Whoever names no command sees what there is."""
        if not args:
            typer.echo(ctx.get_help())
            ctx.exit(2)
        take_as_they_are(self.get_params(ctx))
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    def _commands(self, ctx: Any) -> dict[str, list[tuple[str, str]]]:
        """The commands with their first sentences, by panel."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                title = getattr(command, "rich_help_panel", None) or "Commands"
                said = " ".join((command.help or "").partition("\n\n")[0].split())
                panels.setdefault(title, []).append((name, said))
        return panels


def _option(option: TyperOption) -> tuple[str, str]:
    takes = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
    variable = f" [env var: {option.envvar}]" if option.envvar else ""
    return ", ".join(option.opts) + takes, (option.help or "") + variable


def _text(said: str, width: int) -> Iterator[str]:
    """The first paragraph as one; the others as they are written."""
    first, *others = said.split("\n\n")
    yield from (f" {line}" for line in wrap(" ".join(first.split()), width))
    for paragraph in others:
        yield ""
        for line in paragraph.splitlines():
            indent = " " * (1 + len(line) - len(line.lstrip()))
            yield from wrap(line, width, initial_indent=" ", subsequent_indent=indent)


def _panel(title: str, rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    """Names and what is said of each, in a frame with a title."""
    rows = list(rows)
    left = max(len(name) for name, _ in rows)
    right = width - left - 6
    yield f"╭─ {title} ".ljust(width - 1, "─") + "╮"
    for name, said in rows:
        shown = typer.style(name.ljust(left), fg="cyan", bold=True)
        for line in wrap(said, right) or [""]:
            yield f"│ {shown}  {line.ljust(right)} │"
            shown = " " * left
    yield "╰".ljust(width - 1, "─") + "╯"
