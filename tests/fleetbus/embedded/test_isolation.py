import asyncpg
import nats
import pytest

RUNS = pytest.mark.parametrize("run", [1, 2])


@RUNS
async def test_a_test_has_a_migrated_database_of_its_own(database_url: str, run: int) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        schemas = await connection.fetchval("SELECT array_agg(nspname::text) FROM pg_namespace")
        await connection.execute(f"CREATE TABLE public.of_one_test AS SELECT {run}")
    finally:
        await connection.close()

    assert "planning" in schemas


@RUNS
async def test_a_test_has_its_own_subjects_and_streams(nats_url: str, run: int) -> None:
    connection = await nats.connect(nats_url)
    try:
        jetstream = connection.jetstream()
        await jetstream.add_stream(name=f"stream-{run}", subjects=["same.subject"])
        await jetstream.publish("same.subject", b"")

        assert len(await jetstream.streams_info()) == 1
    finally:
        await connection.close()
