"""What happens to initiatives."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.handling import Decision, Emit, changes, decider, handler, query
from bus.storage import get_locked, lock_for_deletion, remove, save
from contracts.planning.initiatives import (
    ApproveInitiative,
    ArchiveInitiative,
    CreateInitiative,
    DeleteInitiative,
    FindInitiative,
    GetInitiativeOverview,
    Initiative,
    InitiativeApproved,
    InitiativeArchived,
    InitiativeChangesRequested,
    InitiativeContents,
    InitiativeCreated,
    InitiativeDeleted,
    InitiativeDeletion,
    InitiativeOverview,
    InitiativeProjects,
    InitiativeProjectsChanged,
    InitiativeUnarchived,
    InitiativeUpdated,
    RequestInitiativeChanges,
    SetInitiativeProjects,
    UnarchiveInitiative,
    UpdateInitiative,
)
from handlers.planning.states import INITIATIVE
from persistence.planning import initiatives


@decider
def create_initiative(
    command: CreateInitiative, *, now: datetime, new_id: UUID
) -> Decision[Initiative]:
    initiative = Initiative.first(
        id=new_id,
        now=now,
        name=command.name,
        status="active",
        status_before=None,
        branch=command.branch,
        execution_mode=command.execution_mode,
        external_ref=command.external_ref,
    )

    return Decision(
        initiative,
        InitiativeCreated(initiative=initiative, project_ids=command.project_ids),
        beside=initiatives.about(initiative, command.project_ids, now=now),
    )


@query
async def find_initiative(query: FindInitiative, *, db: AsyncConnection) -> Initiative:
    return await initiatives.find(db, query)


@query
async def get_initiative_overview(
    query: GetInitiativeOverview, *, db: AsyncConnection
) -> InitiativeOverview:
    return await initiatives.overview(db, query.id)


@decider
def update_initiative(
    command: UpdateInitiative, initiative: Initiative, *, now: datetime
) -> Decision[Initiative]:
    initiative.expect(command.expected_version)
    if not (changed := changes(command, initiative)):
        return Decision.unchanged(initiative)

    updated = initiative.evolve(now, **changed)

    return Decision(updated, InitiativeUpdated(initiative=updated))


@handler
async def set_initiative_projects(
    command: SetInitiativeProjects, *, db: AsyncConnection, emit: Emit, now: datetime
) -> InitiativeProjects:
    initiative = await get_locked(db, Initiative, command.id)
    known = await initiatives.project_ids(db, initiative.id)
    added = [id_ for id_ in command.project_ids if id_ not in set(known)]
    removed = [id_ for id_ in known if id_ not in set(command.project_ids)]
    if not (added or removed):
        return InitiativeProjects(initiative=initiative, added=[], removed=[])

    changed = initiative.evolve(now)
    await initiatives.remove_projects(db, initiative.id, removed)
    await save(db, [changed], beside=initiatives.about(initiative, added, now=now))
    emit(InitiativeProjectsChanged(initiative=changed, added=added, removed=removed))

    return InitiativeProjects(initiative=changed, added=added, removed=removed)


@decider
def approve_initiative(
    command: ApproveInitiative, initiative: Initiative, *, now: datetime
) -> Decision[Initiative]:
    INITIATIVE.require(initiative, "approve")

    approved = initiative.evolve(now, status="completed")

    return Decision(
        approved,
        InitiativeApproved(
            initiative=approved, previous_status=initiative.status, strategy=command.strategy
        ),
    )


@decider
def request_initiative_changes(
    command: RequestInitiativeChanges, initiative: Initiative, *, now: datetime
) -> Decision[Initiative]:
    INITIATIVE.require(initiative, "request_changes")

    active = initiative.evolve(now, status="active")

    return Decision(
        active,
        InitiativeChangesRequested(
            initiative=active, previous_status=initiative.status, summary=command.summary
        ),
    )


@decider
def archive_initiative(
    command: ArchiveInitiative,  # noqa: ARG001  the id has been used to find it
    initiative: Initiative,
    *,
    now: datetime,
) -> Decision[Initiative]:
    INITIATIVE.require(initiative, "archive")

    archived = initiative.evolve(now, status="archived", status_before=initiative.status)

    return Decision(
        archived, InitiativeArchived(initiative=archived, previous_status=initiative.status)
    )


@decider
def unarchive_initiative(
    command: UnarchiveInitiative,  # noqa: ARG001  the id has been used to find it
    initiative: Initiative,
    *,
    now: datetime,
) -> Decision[Initiative]:
    INITIATIVE.require(initiative, "unarchive")

    back = initiative.evolve(now, status=initiative.status_before or "active", status_before=None)

    return Decision(back, InitiativeUnarchived(initiative=back, previous_status=initiative.status))


@handler
async def delete_initiative(
    command: DeleteInitiative, *, db: AsyncConnection, emit: Emit, now: datetime
) -> InitiativeDeletion:
    initiative = await lock_for_deletion(db, Initiative, command.id)
    phases, tasks = await initiatives.contents(db, initiative)
    deleted = InitiativeContents(phases=phases.number, tasks=tasks.number)

    await remove(db, initiative)
    emit(
        InitiativeDeleted(
            initiative=initiative.evolve(now),
            deleted=deleted,
            phase_ids=phases.ids,
            task_ids=tasks.ids,
        )
    )

    return InitiativeDeletion(id=initiative.id, deleted=deleted)
