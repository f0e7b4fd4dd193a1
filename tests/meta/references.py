"""The references within a document."""

from typing import Any


def references(document: Any) -> set[str]:
    """Every ``$ref`` in a document."""
    if isinstance(document, list):
        return set().union(*map(references, document))
    if not isinstance(document, dict):
        return set()
    found = set().union(*map(references, document.values()))
    return found | {document["$ref"]} if isinstance(document.get("$ref"), str) else found


def resolved(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part]
    return document
