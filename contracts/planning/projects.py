"""Projects: the repositories that a fleet works on."""

from contracts._declare import Entity
from contracts._errors import NotFound
from contracts._fields import GitRef, Id, Markdown, Name, Time, Url

ProjectId = Id


class ProjectNotFound(NotFound, detail="project {id} does not exist"):
    """There is no such project."""

    id: ProjectId


class Project(Entity, not_found=ProjectNotFound):
    """A repository that a fleet works on."""

    name: Name
    url: Url
    default_branch: GitRef
    description: Markdown | None
    last_fetched_at: Time | None
    archived_at: Time | None
