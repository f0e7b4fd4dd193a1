"""Markdown as the generated pages have it."""

from __future__ import annotations

from collections.abc import Iterable


def page(title: str, lead: str, parts: Iterable[str]) -> str:
    """A whole page, which says that it is generated."""
    head = f"# {title}\n\n{lead} This page is made from the declarations by `make docs`."
    return joined([head, *parts])


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table; columns whose title begins with ``>`` are numbers."""
    titles = tuple(title.removeprefix(">") for title in head)
    rule = tuple("---:" if title.startswith(">") else "---" for title in head)
    lines = [titles, rule, *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def prose(text: str) -> str:
    """A docstring's text in Markdown."""
    return text.replace("``", "`")


def joined(parts: Iterable[str]) -> str:
    """Paragraphs, tables and sections as one text."""
    return "\n\n".join(parts) + "\n"


def anchor(heading: str) -> str:
    """Where a heading of code can be reached: ``db.tasks`` → ``dbtasks``."""
    return heading.replace(".", "").lower()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
