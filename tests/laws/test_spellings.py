"""Three spellings of one name: ``CompleteTask``, ``complete_task``, ``TestCompleteTask``."""

import ast
from pathlib import Path
from typing import Any

import pytest

from bus.contract import GetOf
from bus.contract.catalogue import Catalogue
from bus.contract.operation import Operation
from bus.contract.refusals import snake_case
from bus.running.declared import answered
from fleetbus import domain

TESTS = Path(__file__).parents[1]


@pytest.fixture
def catalogue() -> Catalogue:
    return domain.catalogue()


def classes_of_tests(context: str) -> set[str]:
    trees = [ast.parse(path.read_text()) for path in (TESTS / context).rglob("test_*.py")]
    return {
        node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    }


def handler_functions(operation: type[Operation[Any]]) -> set[str]:
    path = operation.__module__.replace("contracts", "handlers", 1).replace(".", "/") + ".py"
    if not (file := TESTS.parent / path).exists():
        return set()
    return {
        node.name
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_operation_has_a_handler_of_its_name_or_needs_none(catalogue: Catalogue) -> None:
    domain.registry()
    missing = [
        f"{snake_case(operation.__name__)} in handlers of {operation.__module__}"
        for operation in catalogue.operations
        if answered(operation) is None
        and snake_case(operation.__name__) not in handler_functions(operation)
    ]
    assert missing == []


def test_every_operation_has_a_test_class_of_its_name_or_needs_none(catalogue: Catalogue) -> None:
    tested = {context.name: classes_of_tests(context.name) for context in catalogue.contexts}
    missing = [
        f"Test{operation.__name__} under tests/{context.name}/"
        for context in catalogue.contexts
        for operation in context.operations
        if not issubclass(operation, GetOf)  # of it all is said by the laws that call it
        and f"Test{operation.__name__}" not in tested[context.name]
    ]
    assert missing == []
