"""Generations: documents that were generated from a repository."""

from typing import Annotated

from pydantic import Field, StringConstraints

from bus.contract import (
    AlreadyExists,
    Command,
    Count,
    Entity,
    Event,
    GetOf,
    Id,
    ListOf,
    NotFound,
    Query,
    Reply,
    Text,
    Time,
    Title,
    Url,
)

GenerationId = Id

RepoUrl = Annotated[
    Url,
    StringConstraints(
        max_length=500,
        pattern=r"^https://[A-Za-z0-9.-]+(:[0-9]+)?/[\w.-]*\w[\w.-]*/[\w.-]*\w[\w.-]*$",
    ),
]
"""A repository: ``https://<host>/<owner>/<repo>``."""

Content = Annotated[Text, StringConstraints(min_length=1, max_length=200_000)]
"""A document of 1–200,000 characters."""

Sources = Annotated[list[Title], Field(max_length=500)]
"""What a document was made from: paths or addresses, up to 500."""


class GenerationNotFound(NotFound, detail="generation {id} does not exist"):
    """There is no such generation."""

    id: GenerationId


class Generation(Entity, not_found=GenerationNotFound):
    """A document that was generated from a repository."""

    repo_url: RepoUrl
    pr_url: Url | None
    """The pull request that proposes it, if one was opened."""
    is_dry_run: bool
    content: Content
    sources: Sources


class GenerationBrief(Reply):
    """A generation without its content."""

    id: GenerationId
    version: Count
    created_at: Time
    repo_url: RepoUrl
    pr_url: Url | None
    is_dry_run: bool
    sources: Sources
    characters: Count
    """How long its content is."""


class GenerationRecorded(Event, type="generation.recorded"):
    """A document was generated; ``db.generations.get`` returns its content."""

    generation: GenerationBrief


class RecordGeneration(
    Command[Generation],
    subject="db.generations.record",
    errors=(AlreadyExists,),
    emits=(GenerationRecorded,),
    example={
        "repo_url": "https://git.example.org/acme/parser",
        "content": "# Parser",
        "sources": ["src/parser.py"],
    },
):
    """Record a document that was generated from a repository."""

    id: GenerationId | None = None
    repo_url: RepoUrl
    pr_url: Url | None = None
    is_dry_run: bool = False
    content: Content
    sources: Sources = Field(default=[])


class GetGeneration(GetOf[Generation], subject="db.generations.get"):
    """Get one generation with its content."""

    id: GenerationId


class ListGenerations(
    ListOf[Generation],
    subject="db.generations.list",
    example={"repo_url": "https://git.example.org/acme/parser", "is_dry_run": False},
):
    """List generations with their contents; ask for small pages if those are long."""

    repo_url: RepoUrl | None = None
    is_dry_run: bool | None = None
