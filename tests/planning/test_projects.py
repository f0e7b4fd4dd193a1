from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract.errors import AlreadyExists, InvalidRequest, InvalidTransition
from bus.kit.ids import uuid7
from contracts.planning.initiatives import CreateInitiative, ListInitiatives
from contracts.planning.projects import (
    ArchiveProject,
    CreateProject,
    DeleteProject,
    FindProject,
    GetProject,
    ListProjects,
    Project,
    ProjectNotFound,
    RecordProjectFetch,
    UnarchiveProject,
    UpdateProject,
)
from fleetbus.client import Bus
from tests.kit.outbox import Outbox

URL = "https://git.example.org/fleetbus.git"


async def create(bus: Bus, name: str = "fleetbus", **fields: Any) -> Project:
    fields.setdefault("url", f"https://git.example.org/{name.replace(' ', '-')}.git")
    return await bus.call(CreateProject(name=name, **fields))


async def told(outbox: Outbox) -> list[tuple[str, Any]]:
    return [(row.type, row.data) for row in await outbox.all()]


class TestCreateProject:
    async def test_project_with_defaults(self, bus: Bus, outbox: Outbox) -> None:
        project = await bus.call(CreateProject(name="fleetbus", url=URL))

        assert (project.version, project.name, project.url) == (1, "fleetbus", URL)
        assert (project.default_branch, project.description) == ("main", None)
        assert (project.archived_at, project.last_fetched_at) == (None, None)
        assert await bus.call(GetProject(id=project.id)) == project
        assert await told(outbox) == [
            ("project.created", {"project": project.model_dump(mode="json")})
        ]

    async def test_id_of_the_callers_own(self, bus: Bus) -> None:
        id_ = uuid7()
        assert (await create(bus, id=id_)).id == id_
        with pytest.raises(AlreadyExists) as refused:
            await create(bus, "other", id=id_)
        assert (refused.value.entity, refused.value.fields) == ("project", "id")

    @pytest.mark.parametrize("field", ["name", "url"])
    async def test_name_and_address_are_unique(self, bus: Bus, field: str) -> None:
        one = await create(bus, "one")
        other = {"name": "two", "url": URL} | {field: getattr(one, field)}
        with pytest.raises(AlreadyExists) as refused:
            await bus.call(CreateProject(**other))
        assert (refused.value.entity, refused.value.fields) == ("project", field)

    async def test_the_longest_address_can_be_stored(self, bus: Bus) -> None:
        url = "https://" + "é".encode().hex() * 498
        assert len(url) == 2000
        assert (await create(bus, url=url)).url == url

    async def test_an_address_is_ascii(self, bus: Bus) -> None:
        with pytest.raises(ValueError, match="ASCII"):
            CreateProject(name="x", url="https://exämple.org")


class TestFindProject:
    async def test_by_name(self, bus: Bus) -> None:
        project = await create(bus)
        assert await bus.call(FindProject(name="fleetbus")) == project

    async def test_by_url(self, bus: Bus) -> None:
        project = await create(bus, url=URL)
        assert await bus.call(FindProject(url=URL)) == project

    async def test_unknown(self, bus: Bus) -> None:
        with pytest.raises(ProjectNotFound) as refused:
            await bus.call(FindProject(name="nobody"))
        assert str(refused.value) == "project nobody does not exist"

    @pytest.mark.parametrize("fields", [{}, {"name": "x", "url": URL}])
    async def test_exactly_one_is_given(self, bus: Bus, fields: dict[str, str]) -> None:
        with pytest.raises(InvalidRequest, match="either name or url"):
            await bus.call(FindProject.model_construct(**fields))  # type: ignore[arg-type]  # past the client's own check


class TestListProjects:
    async def names(self, bus: Bus, **query: Any) -> list[str]:
        page = await bus.call(ListProjects(**query))
        return [project.name for project in page.items]

    async def test_pages_in_one_statement(self, bus: Bus, statements: Any) -> None:
        for name in ("b", "c", "a"):
            await create(bus, name)
        with statements() as counted:
            first = await bus.call(ListProjects(limit=2, order="name"))
        assert counted.total == 1
        assert [project.name for project in first.items] == ["a", "b"]
        assert await self.names(bus, limit=2, order="name", cursor=first.next_cursor) == ["c"]

    @pytest.mark.parametrize(
        ("order", "names"),
        [
            ("created_at", ["b", "a"]),
            ("-created_at", ["a", "b"]),
            ("name", ["a", "b"]),
            ("-name", ["b", "a"]),
        ],
    )
    async def test_orders(self, bus: Bus, order: str, names: list[str]) -> None:
        await create(bus, "b")
        await create(bus, "a")
        assert await self.names(bus, order=order) == names

    async def test_archived_or_not(self, bus: Bus) -> None:
        old = await create(bus, "old")
        await create(bus, "new")
        await bus.call(ArchiveProject(id=old.id))
        assert await self.names(bus) == ["old", "new"]
        assert await self.names(bus, archived=True) == ["old"]
        assert await self.names(bus, archived=False) == ["new"]

    async def test_search_in_name_and_description(self, bus: Bus) -> None:
        await create(bus, "Parser")
        await create(bus, "other", description="uses the PARSER")
        await create(bus, "third")
        assert await self.names(bus, search="parse") == ["Parser", "other"]

    async def test_search_takes_wildcards_literally(self, bus: Bus) -> None:
        await create(bus, "100%")
        await create(bus, "1000")
        await create(bus, "a_b")
        await create(bus, "axb")
        assert await self.names(bus, search="0%") == ["100%"]
        assert await self.names(bus, search="a_b") == ["a_b"]

    async def test_of_an_initiative(self, bus: Bus) -> None:
        one = await create(bus, "one")
        await create(bus, "two")
        initiative = await bus.call(CreateInitiative(name="x", project_ids=[one.id]))
        assert await self.names(bus, initiative_id=initiative.id) == ["one"]

    async def test_exact_count(self, bus: Bus) -> None:
        await create(bus, "one")
        await create(bus, "two")
        page = await bus.call(ListProjects(limit=1, count="exact"))
        assert page.total == 2


class TestUpdateProject:
    async def test_what_is_left_out_stays_and_null_clears(self, bus: Bus, outbox: Outbox) -> None:
        project = await create(bus, description="first")
        updated = await bus.call(UpdateProject(id=project.id, description=None, name="renamed"))
        assert (updated.version, updated.name, updated.description) == (2, "renamed", None)
        assert (updated.url, updated.default_branch) == (project.url, "main")
        assert updated.updated_at > project.updated_at
        assert await bus.call(GetProject(id=project.id)) == updated
        assert (await told(outbox))[1:] == [
            ("project.updated", {"project": updated.model_dump(mode="json")})
        ]

    async def test_nothing_changed_tells_nothing(self, bus: Bus, outbox: Outbox) -> None:
        project = await create(bus)
        assert await bus.call(UpdateProject(id=project.id, name=project.name)) == project
        assert await bus.call(UpdateProject(id=project.id)) == project
        assert await outbox.types() == ["project.created"]

    async def test_a_name_is_never_null(self, bus: Bus) -> None:
        project = await create(bus)
        null: Any = None
        request = UpdateProject.model_construct({"id", "name"}, id=project.id, name=null)
        with pytest.raises(InvalidRequest) as refused:
            await bus.call(request)
        assert refused.value.errors[0].field == "name"

    async def test_taken_name(self, bus: Bus) -> None:
        await create(bus, "one")
        two = await create(bus, "two")
        with pytest.raises(AlreadyExists):
            await bus.call(UpdateProject(id=two.id, name="one"))


class TestArchiveProject:
    async def test_archived(self, bus: Bus, outbox: Outbox) -> None:
        project = await create(bus)
        archived = await bus.call(ArchiveProject(id=project.id))
        assert (archived.version, archived.archived_at) == (2, archived.updated_at)
        assert await outbox.types() == [
            "project.created",
            "project.archived",
        ]

    async def test_twice(self, bus: Bus) -> None:
        project = await create(bus)
        await bus.call(ArchiveProject(id=project.id))
        with pytest.raises(InvalidTransition):
            await bus.call(ArchiveProject(id=project.id))


class TestUnarchiveProject:
    async def test_taken_up_again(self, bus: Bus, outbox: Outbox) -> None:
        project = await create(bus)
        await bus.call(ArchiveProject(id=project.id))
        active = await bus.call(UnarchiveProject(id=project.id))
        assert (active.version, active.archived_at) == (3, None)
        assert (await outbox.types())[-1] == "project.unarchived"

    async def test_not_archived(self, bus: Bus) -> None:
        project = await create(bus)
        with pytest.raises(InvalidTransition):
            await bus.call(UnarchiveProject(id=project.id))


class TestRecordProjectFetch:
    async def test_recorded(self, bus: Bus, outbox: Outbox) -> None:
        project = await create(bus)
        time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        fetched = await bus.call(RecordProjectFetch(id=project.id, fetched_at=time))
        assert (fetched.version, fetched.last_fetched_at) == (2, time)
        assert (await outbox.types())[-1] == "project.fetched"

    async def test_a_late_report_changes_nothing(self, bus: Bus, outbox: Outbox) -> None:
        project = await create(bus)
        time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        fetched = await bus.call(RecordProjectFetch(id=project.id, fetched_at=time))
        earlier = RecordProjectFetch(id=project.id, fetched_at=time - timedelta(seconds=1))
        assert await bus.call(earlier) == fetched
        assert await outbox.count() == 2


class TestDeleteProject:
    async def test_links_go_along_and_initiatives_stay(
        self, bus: Bus, db: AsyncConnection, outbox: Outbox
    ) -> None:
        project = await create(bus)
        for name in ("one", "two"):
            await bus.call(CreateInitiative(name=name, project_ids=[project.id]))

        deletion = await bus.call(DeleteProject(id=project.id))

        assert (deletion.id, deletion.deleted.initiative_links) == (project.id, 2)
        links = await db.execute(text("SELECT count(*) FROM planning.initiative_projects"))
        assert links.scalar_one() == 0
        assert len((await bus.call(ListInitiatives())).items) == 2
        changed = [data for type_, data in await told(outbox) if type_.endswith("projects_changed")]
        assert [(each["initiative"]["version"], each["removed"]) for each in changed] == [
            (2, [str(project.id)])
        ] * 2
        assert {each.version for each in (await bus.call(ListInitiatives())).items} == {2}
        type_, data = (await told(outbox))[-1]
        assert (type_, data["deleted"]) == ("project.deleted", {"initiative_links": 2})
        assert (data["project"]["id"], data["project"]["version"]) == (str(project.id), 2)
