"""Projects: the repositories that a fleet works on."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from bus.contract import (
    ABSENT,
    AlreadyExists,
    Command,
    Count,
    Entity,
    Event,
    GitRef,
    Id,
    InvalidTransition,
    ListOf,
    Markdown,
    Name,
    NotFound,
    Query,
    Reply,
    Search,
    Time,
    Url,
    Version,
    VersionConflict,
)
from contracts.planning._fields import ProjectId
from contracts.planning.initiatives import InitiativeProjectsChanged

ProjectOrder = Literal["created_at", "-created_at", "name", "-name"]

_EXAMPLE_ID = "0199c0de-0000-7000-8000-000000000001"


def _ascii(url: str) -> str:
    if not url.isascii():
        raise ValueError("must be ASCII; other characters are percent-encoded (RFC 3986)")
    return url


GitUrl = Annotated[Url, AfterValidator(_ascii)]
"""An address that git clones from: ASCII without spaces, up to 2,000 characters."""


class ProjectNotFound(NotFound):
    """There is no such project."""

    id: ProjectId | None = None
    name: Name | None = None
    url: GitUrl | None = None

    @property
    def detail(self) -> str:
        """Which project was asked for."""
        return f"project {self.id or self.name or self.url} does not exist"


class Project(Entity, not_found=ProjectNotFound):
    """A repository that a fleet works on."""

    name: Name
    """Unique among projects."""
    url: GitUrl
    """The address that git clones it from; unique among projects."""
    default_branch: GitRef
    description: Markdown | None
    last_fetched_at: Time | None
    """When it was last fetched from its address, as far as it was recorded."""
    archived_at: Time | None
    """Since when it is archived; null while it is not."""


class ProjectContents(Reply):
    """What belonged to a project and went along when it was deleted."""

    initiative_links: Count
    """From how many initiatives it was taken; the initiatives themselves remain."""


class ProjectDeletion(Reply):
    """What was deleted."""

    id: ProjectId
    deleted: ProjectContents


class ProjectCreated(Event, type="project.created"):
    """A project was made known."""

    project: Project


class ProjectUpdated(Event, type="project.updated"):
    """What a project says was changed."""

    project: Project


class ProjectArchived(Event, type="project.archived"):
    """A project is no longer worked on."""

    project: Project


class ProjectUnarchived(Event, type="project.unarchived"):
    """An archived project is worked on again."""

    project: Project


class ProjectFetched(Event, type="project.fetched"):
    """A project was fetched from its address."""

    project: Project


class ProjectDeleted(Event, type="project.deleted"):
    """A project is gone."""

    project: Project
    """As it was last, its version one higher."""
    deleted: ProjectContents


class CreateProject(
    Command[Project],
    subject="db.projects.create",
    errors=(AlreadyExists,),
    emits=(ProjectCreated,),
    example={"name": "fleetbus", "url": "https://git.example.org/fleetbus.git"},
):
    """Make a project known. Name and address are unique: a second one is ``already_exists``."""

    id: ProjectId | None = None
    """A UUIDv7 of the caller's own; made by the service when absent."""
    name: Name
    url: GitUrl
    default_branch: GitRef = "main"
    description: Markdown | None = None


class GetProject(
    Query[Project],
    subject="db.projects.get",
    errors=(ProjectNotFound,),
    example={"id": _EXAMPLE_ID},
):
    """One project by its id."""

    id: ProjectId


class FindProject(
    Query[Project],
    subject="db.projects.find",
    errors=(ProjectNotFound,),
    example={"url": "https://git.example.org/fleetbus.git"},
):
    """One project by its name or by its address; exactly one of them is given."""

    name: Name | None = None
    url: GitUrl | None = None

    @model_validator(mode="after")
    def _by_one_of_them(self) -> Self:
        if (self.name is None) == (self.url is None):
            raise ValueError("give either name or url")
        return self


class ListProjects(
    ListOf[Project],
    subject="db.projects.list",
    example={"archived": False, "order": "name"},
):
    """Projects, a page at a time; an absent filter leaves nothing out."""

    archived: bool | None = None
    """true: only archived ones, false: only those that are not."""
    initiative_id: Id | None = None
    """Only the projects of this initiative."""
    search: Search | None = None
    """Text in the name or the description."""
    order: ProjectOrder = "created_at"
    """The column to order by; ``-`` turns it round. Ties are broken by id."""


class UpdateProject(
    Command[Project],
    subject="db.projects.update",
    errors=(ProjectNotFound, VersionConflict, AlreadyExists),
    emits=(ProjectUpdated,),
    example={"id": _EXAMPLE_ID, "default_branch": "trunk", "description": None},
):
    """Change what a project says. A field left out stays as it is, null clears it.

    An update that changes nothing leaves the version alone and tells nothing.
    """

    id: ProjectId
    expected_version: Version | None = None
    """Refuse unless the project is at this version."""
    name: Name = ABSENT
    url: GitUrl = ABSENT
    default_branch: GitRef = ABSENT
    description: Markdown | None = None


class ArchiveProject(
    Command[Project],
    subject="db.projects.archive",
    errors=(ProjectNotFound, InvalidTransition),
    emits=(ProjectArchived,),
    example={"id": _EXAMPLE_ID},
):
    """Note that a project is no longer worked on; it stays where it is used."""

    id: ProjectId


class UnarchiveProject(
    Command[Project],
    subject="db.projects.unarchive",
    errors=(ProjectNotFound, InvalidTransition),
    emits=(ProjectUnarchived,),
    example={"id": _EXAMPLE_ID},
):
    """Take an archived project up again."""

    id: ProjectId


class RecordProjectFetch(
    Command[Project],
    subject="db.projects.record_fetch",
    errors=(ProjectNotFound,),
    emits=(ProjectFetched,),
    example={"id": _EXAMPLE_ID, "fetched_at": "2026-01-02T03:04:05Z"},
):
    """Record that a project was fetched. A time before the one that is known changes nothing."""

    id: ProjectId
    fetched_at: Time
    """When it was fetched; a time after the database's now counts as now."""


class DeleteProject(
    Command[ProjectDeletion],
    subject="db.projects.delete",
    errors=(ProjectNotFound,),
    emits=(ProjectDeleted, InitiativeProjectsChanged),
    example={"id": _EXAMPLE_ID},
):
    """Delete a project for good and take it from every initiative. See ``archive``.

    Each initiative that was about it is told as ``initiative.projects_changed``.
    """

    id: ProjectId
