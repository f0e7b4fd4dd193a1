"""A block that is ended from outside raises why, and nothing else of it is left."""

import asyncio
import contextlib

import pytest

from fleetbus.client.interruption import Interruption


class Enough(Exception):
    """Somebody wants the block to end."""


async def soon(block: Interruption, *, also_cancel: asyncio.Task[object] | None = None) -> None:
    await asyncio.sleep(0)
    block.interrupt(Enough("now"))
    if also_cancel is not None:
        also_cancel.cancel()


class TestInterruption:
    async def test_raises_its_reason_in_place_of_the_cancellation(self) -> None:
        block = Interruption()
        interrupting = asyncio.create_task(soon(block))
        with pytest.raises(Enough, match="now"):
            await _wait_in(block)
        await interrupting
        await asyncio.sleep(0)  # nothing of it is left to be raised later

    async def test_leaves_the_cancellation_of_somebody_else_alone(self) -> None:
        block = Interruption()
        waiting = asyncio.create_task(_wait_in(block))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert block.reason is None

    async def test_a_cancellation_that_comes_too_is_more_important(self) -> None:
        block = Interruption()
        waiting = asyncio.create_task(_wait_in(block))
        await soon(block, also_cancel=waiting)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    async def test_within_a_deadline_that_is_over_the_deadline_is_told(self) -> None:
        block = Interruption()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await _wait_in(block)

    async def test_an_exception_on_the_way_out_goes_on_and_nothing_is_left(self) -> None:
        block = Interruption()
        interrupting = asyncio.create_task(soon(block))
        with pytest.raises(KeyError), block:
            await _fail_in_clean_up()
        await interrupting
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    async def test_one_that_was_swallowed_is_remembered(self) -> None:
        block = Interruption()
        interrupting = asyncio.create_task(soon(block))
        with block, contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await interrupting
        assert isinstance(block.reason, Enough)

    async def test_has_one_reason_the_first(self) -> None:
        block = Interruption()
        waiting = asyncio.create_task(_wait_in(block))
        await asyncio.sleep(0)
        block.interrupt(Enough("first"))
        block.interrupt(Enough("second"))
        with pytest.raises(Enough, match="first"):
            await waiting

    async def test_outside_of_the_block_nothing_is_ended(self) -> None:
        block = Interruption()
        block.interrupt(Enough("too early"))
        with block:
            await asyncio.sleep(0)
        block.interrupt(Enough("too late"))
        await asyncio.sleep(0)
        assert block.reason is None


async def _wait_in(block: Interruption) -> None:
    with block:
        await asyncio.Event().wait()


async def _fail_in_clean_up() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise KeyError("in the clean-up")
