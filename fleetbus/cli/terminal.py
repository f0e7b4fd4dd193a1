"""What the commands share of a terminal: how they fail, run and print."""

from __future__ import annotations

import json
import sys
from collections.abc import Coroutine, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

WIDTH_OF_A_FILE = 160
"""Columns of what goes into a file or pipe."""


class Failed(Exception):
    """What was asked could not be done; the message is for a person."""

    code = 1
    """What the program exits with."""


class NoAnswerCame(Failed):
    """Nobody answered, so nobody has refused either."""

    code = 3


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work in an event loop of its own."""
    import asyncio

    return asyncio.run(work)


def console(*, stderr: bool = False) -> Console:
    """A console for tables and progress; plain text flows through ``say``."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_OF_A_FILE
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def say(text: str = "") -> None:
    """Print a line as it is: ids are not wrapped, brackets are no markup."""
    print(text)  # noqa: T201  the output of the command


def note(text: str) -> None:
    """Print a line beside the output."""
    print(text, file=sys.stderr)  # noqa: T201  beside the output of the command


def print_json(value: Any) -> None:
    """Print JSON indented, in colours on a terminal."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not sys.stdout.isatty():
        say(text)
        return
    from rich.syntax import Syntax

    console().print(Syntax(text, "json", background_color="default", word_wrap=True))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names what is spelled alike, or nothing."""
    near = get_close_matches(word, sorted(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def printable(text: str) -> str:
    """A text on one line, without what would move the cursor."""
    return "".join(c if c.isprintable() else " " for c in text)
