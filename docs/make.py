"""Makes the generated pages of the documentation and the generated parts of the README.

python docs/make.py
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from docs import _configuration, _operations, _reference, _shape  # noqa: E402  found by the above
from fleetbus import domain  # noqa: E402  as above

BEGIN = "<!-- begin generated: {name} -->"
END = "<!-- end generated: {name} -->"

BY_CONTEXT = "operations"
"""The folder with a page for each context; it holds nothing else."""


@cache
def pages() -> dict[str, str]:
    """The content of every generated page, by its path under ``docs/``."""
    registry = domain.registry()
    catalogue = registry.catalogue
    return {
        "operations.md": _operations.index_page(catalogue),
        **{
            f"{BY_CONTEXT}/{context.name}.md": str(_operations.ContextPage(context))
            for context in catalogue.contexts
        },
        "events.md": _reference.events_page(registry),
        "errors.md": _reference.errors_page(catalogue),
        "states.md": _reference.states_page(),
        "configuration.md": _configuration.configuration_page(),
        "shape.md": _shape.shape_page(catalogue, ROOT),
    }


@cache
def parts() -> dict[str, str]:
    """The generated parts of the README, by the names of their markers."""
    catalogue = domain.catalogue()
    return {
        "operations": _operations.overview(catalogue),
        "events": _reference.events_overview(catalogue),
        "configuration": _configuration.settings_table(_configuration.FIRST_SETTINGS),
    }


def insert(text: str, name: str, content: str) -> str:
    """A text with the part between its markers replaced."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def write(root: Path) -> None:
    """Bring the pages and the README up to date; the page of a context that is gone goes too."""
    folder = root / "docs" / BY_CONTEXT
    folder.mkdir(exist_ok=True)
    for name, content in pages().items():
        (root / "docs" / name).write_text(content, encoding="utf-8")
    for page in folder.glob("*.md"):
        if f"{BY_CONTEXT}/{page.name}" not in pages():
            page.unlink()
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, content in parts().items():
        text = insert(text, name, content)
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(
        description="Make the generated pages under docs/ and the generated parts of README.md."
    ).parse_args()
    write(ROOT)
