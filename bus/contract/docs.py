"""Docstrings as documentation: of classes, and the strings under fields, as editors show them.

pydantic's ``use_attribute_docstrings`` cannot read a class statement of several lines that
parametrises a generic base (``class CompleteTask(Command[Task], subject=…)``) before Python 3.13.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache

from bus.contract.refusals import DeclarationError


def summary(cls: type) -> str:
    """The first paragraph of the docstring that a class has itself, on one line."""
    if "__doc__" not in cls.__dict__ or not cls.__doc__:
        raise DeclarationError(
            f"{cls.__qualname__} needs a docstring: it is the published documentation"
        )
    return " ".join(cls.__doc__.split("\n\n")[0].split())


@cache
def attribute_docs(cls: type) -> dict[str, str]:
    """The docstring under each annotated attribute of a class and of its bases."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        folders = base.__module__.split(".")
        if "contracts" in folders or folders[:2] == ["bus", "contract"]:
            docs |= _module_docs(base.__module__).get(base.__qualname__, {})
    return docs


def own_attribute_docs(cls: type) -> dict[str, str]:
    """The same of a class alone, wherever it is declared."""
    return _module_docs(cls.__module__).get(cls.__qualname__, {})


@cache
def _module_docs(module: str) -> dict[str, dict[str, str]]:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):
        return {}
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return {node.name: _class_docs(node) for node in classes}


def _class_docs(node: ast.ClassDef) -> dict[str, str]:
    docs = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            docs[field.target.id] = inspect.cleandoc(text.value.value)
    return docs
