"""Tasks with an owner."""

from __future__ import annotations

import asyncio
import gc

import pytest
from structlog.testing import capture_logs

from harp.errors import HarpError
from harp.net.tasks import Tasks


async def fail() -> None:
    raise HarpError("no")


async def wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_task_nobody_else_keeps_runs_to_its_end() -> None:
    tasks = Tasks()
    begun, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.to_thread(gc.collect)
        done.set()

    tasks.start(work())
    await begun.wait()
    await asyncio.wait_for(done.wait(), 5)


async def test_a_task_that_is_done_is_forgotten() -> None:
    tasks = Tasks()
    task = tasks.start(asyncio.to_thread(int))
    assert len(tasks) == 1
    assert await task == 0
    await tasks.close()
    assert len(tasks) == 0


async def test_an_exception_is_logged_with_its_traceback() -> None:
    tasks = Tasks()
    with capture_logs() as logs:
        await asyncio.wait([tasks.start(fail())])
        await tasks.close()
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("background task failed", "error")
    assert str(line["exc_info"]) == "no"
    assert line["exc_info"].__traceback__ is not None


async def test_an_exception_that_somebody_waits_for_is_theirs() -> None:
    tasks = Tasks()
    with capture_logs() as logs, pytest.raises(HarpError, match="no"):
        await tasks.start(fail(), awaited=True)
    await tasks.close()
    assert logs == []


async def test_close_cancels_what_runs_and_waits_for_its_end() -> None:
    tasks = Tasks()
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await wait_for_ever()
        finally:
            await asyncio.to_thread(cleaned.set)

    task = tasks.start(work())
    await begun.wait()
    await tasks.close()
    assert cleaned.is_set()
    assert task.cancelled()
    await tasks.close()


async def test_close_within_a_task_leaves_that_one_alone() -> None:
    tasks = Tasks()
    other = tasks.start(wait_for_ever())
    await tasks.start(tasks.close())
    assert other.cancelled()


async def test_all_can_be_cancelled_without_waiting_for_their_end() -> None:
    tasks = Tasks()
    task = tasks.start(wait_for_ever())
    tasks.cancel()
    assert not task.done()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()


@pytest.mark.parametrize("waits", [True, False])
async def test_what_is_started_after_the_end_is_cancelled(waits: bool) -> None:
    tasks = Tasks()
    if waits:
        await tasks.close()
    else:
        tasks.cancel()
    task = tasks.start(wait_for_ever())
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert len(tasks) == 0
