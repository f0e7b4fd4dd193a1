"""Who is let into embedded servers, and who may read what they keep."""

from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from fleetbus.embedded._cluster import ROLE
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from tests.fleetbus.embedded.test_stack import fetch_value, shown
from tests.servers import execute

NOT_LET_IN = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InterfaceError,
)


def others_may(path: Path) -> int:
    """What the mode of a file lets anybody but its owner do."""
    return path.stat().st_mode & 0o077


class TestEmbeddedPostgres:
    async def test_who_has_no_password_is_not_let_in(self, own_postgres: EmbeddedPostgres) -> None:
        address = make_url(own_postgres.url)
        assert len(address.password or "") >= 32
        for password in (None, "", "fleetbus", "postgres"):
            with pytest.raises(NOT_LET_IN):
                await execute(shown(address._replace(password=password)), "SELECT 1")

    async def test_its_files_are_its_owners(self, own_postgres: EmbeddedPostgres) -> None:
        for name in ("postgres.password", "postgres.log"):
            assert others_may(own_postgres.data_dir / name) == 0
        assert others_may(own_postgres.data_dir) & ~0o011 == 0
        assert others_may(own_postgres.data_dir / "postgres") == 0

    async def test_a_directory_of_an_earlier_version_is_closed(
        self, own_postgres: EmbeddedPostgres
    ) -> None:
        """It let everybody in, as a role that has no password."""
        await execute(own_postgres.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        await execute(own_postgres.url, f"ALTER ROLE {ROLE} PASSWORD NULL")
        await own_postgres.stop()
        (own_postgres.data_dir / "postgres.password").unlink()
        access = own_postgres.data_dir / "postgres" / "pg_hba.conf"
        access.write_text(f"host all {ROLE} 127.0.0.1/32 trust\n")
        own_postgres.data_dir.chmod(0o755)

        await own_postgres.start()

        with pytest.raises(NOT_LET_IN):
            await execute(shown(make_url(own_postgres.url)._replace(password=None)), "SELECT 1")
        assert await fetch_value(own_postgres.url, "SELECT answer FROM kept") == 42
        assert others_may(own_postgres.data_dir) & ~0o011 == 0

    async def test_a_password_is_told_whole_or_made_anew(
        self, own_postgres: EmbeddedPostgres
    ) -> None:
        await own_postgres.stop()
        (own_postgres.data_dir / "postgres.password").write_text("")

        await own_postgres.start()

        assert await fetch_value(own_postgres.url, "SELECT 1") == 1


class TestEmbeddedNats:
    async def test_its_files_are_its_owners(self, data_dir: Path) -> None:
        for path in (data_dir, data_dir / "nats"):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        (data_dir / "nats.conf").touch(mode=0o644)
        server = EmbeddedNats(data_dir, durable=False)
        await server.start()
        try:
            for name in ("nats", "nats.conf", "nats.log"):
                assert others_may(data_dir / name) == 0
            assert others_may(data_dir) & ~0o011 == 0
        finally:
            await server.stop()
