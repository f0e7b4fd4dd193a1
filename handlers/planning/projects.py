"""What happens to projects."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import InvalidTransition
from bus.handling import Decision, Emit, carry_out, changes, decider, handler, query, reported
from bus.storage import lock, lock_for_deletion, remove
from contracts.planning.initiatives import Initiative, InitiativeProjectsChanged
from contracts.planning.projects import (
    ArchiveProject,
    CreateProject,
    DeleteProject,
    FindProject,
    Project,
    ProjectArchived,
    ProjectCreated,
    ProjectDeleted,
    ProjectDeletion,
    ProjectFetched,
    ProjectUnarchived,
    ProjectUpdated,
    RecordProjectFetch,
    UnarchiveProject,
    UpdateProject,
)
from persistence.planning import projects


@decider
def create_project(command: CreateProject, *, new_id: UUID, now: datetime) -> Decision[Project]:
    project = Project.first(
        id=new_id,
        now=now,
        name=command.name,
        url=command.url,
        default_branch=command.default_branch,
        description=command.description,
        last_fetched_at=None,
        archived_at=None,
    )

    return Decision(project, ProjectCreated(project=project))


@query
async def find_project(query: FindProject, *, db: AsyncConnection) -> Project:
    return await projects.find(db, query)


@decider
def update_project(command: UpdateProject, project: Project, *, now: datetime) -> Decision[Project]:
    project.expect(command.expected_version)
    if not (changed := changes(command, project)):
        return Decision.unchanged(project)

    updated = project.evolve(now, **changed)

    return Decision(updated, ProjectUpdated(project=updated))


@decider
def archive_project(
    command: ArchiveProject,  # noqa: ARG001  the id has been used to find it
    project: Project,
    *,
    now: datetime,
) -> Decision[Project]:
    if project.archived_at is not None:
        raise InvalidTransition(
            entity="project", id=project.id, from_="archived", to="archived", expected="active"
        )

    archived = project.evolve(now, archived_at=now)

    return Decision(archived, ProjectArchived(project=archived))


@decider
def unarchive_project(
    command: UnarchiveProject,  # noqa: ARG001  the id has been used to find it
    project: Project,
    *,
    now: datetime,
) -> Decision[Project]:
    if project.archived_at is None:
        raise InvalidTransition(
            entity="project", id=project.id, from_="active", to="active", expected="archived"
        )

    active = project.evolve(now, archived_at=None)

    return Decision(active, ProjectUnarchived(project=active))


@decider
def record_project_fetch(
    command: RecordProjectFetch, project: Project, *, now: datetime
) -> Decision[Project]:
    fetched_at = reported(command.fetched_at, now)
    if project.last_fetched_at is not None and fetched_at <= project.last_fetched_at:
        return Decision.unchanged(project)

    fetched = project.evolve(now, last_fetched_at=fetched_at)

    return Decision(fetched, ProjectFetched(project=fetched))


@handler
async def delete_project(
    command: DeleteProject, *, db: AsyncConnection, emit: Emit, now: datetime
) -> ProjectDeletion:
    # As whoever changes the projects of an initiative: that first, and then the project.
    await lock(db, Initiative, await projects.initiative_ids(db, command.id))
    project = await lock_for_deletion(db, Project, command.id)
    about_it = await lock(db, Initiative, await projects.initiative_ids(db, command.id))
    deleted = await projects.contents(db, project)

    await remove(db, project)
    decisions = [_without(project, initiative, now) for initiative in about_it.values()]
    await carry_out(decisions, db=db, emit=emit)
    emit(ProjectDeleted(project=project.evolve(now), deleted=deleted))

    return ProjectDeletion(id=project.id, deleted=deleted)


def _without(project: Project, initiative: Initiative, now: datetime) -> Decision[Initiative]:
    changed = initiative.evolve(now)

    return Decision(
        changed, InitiativeProjectsChanged(initiative=changed, added=[], removed=[project.id])
    )
