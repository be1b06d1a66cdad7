"""When a container has started, and what is said when it has not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from harp.engines.docker import DockerEngine
from harp.engines.errors import (
    EngineRefused,
)
from harp.engines.replies import log_lines
from harp.engines.start import Pace
from harp.engines.verbs import StartOutcome
from tests.engines.containers import APP, CONTAINER, RUNNING, waited
from tests.fakes.engine import FakeEngine

pytestmark = pytest.mark.hasty

# wait_for_start


@pytest.mark.parametrize("health", [None, {"Status": ""}, {"Status": "none"}, {}])
async def test_a_container_that_runs_without_a_health_check_has_started(
    engine: DockerEngine, fake: FakeEngine, health: dict[str, str] | None
) -> None:
    assert await waited(engine, fake, {**RUNNING, "Health": health}) == StartOutcome(True, "running", None)


async def test_created_restarting_and_starting_are_waited_for(engine: DockerEngine, fake: FakeEngine) -> None:
    states: list[dict[str, object]] = [
        {"Status": "created"},
        {"Status": "restarting", "Running": True},
        {**RUNNING, "Health": {"Status": "starting"}},
        {**RUNNING, "Health": {"Status": "healthy"}},
    ]
    assert await waited(engine, fake, *states) == StartOutcome(True, "running", "healthy")


async def test_an_unhealthy_container_has_not_started_and_its_check_says_why(
    engine: DockerEngine, fake: FakeEngine
) -> None:
    health = {"Status": "unhealthy", "Log": [{"Output": "first"}, {"Output": "connection refused\n"}]}
    outcome = await waited(engine, fake, {**RUNNING, "Health": health})
    assert (outcome.started, outcome.status, outcome.health) == (False, "running", "unhealthy")
    assert str(outcome.reason).startswith("unhealthy: connection refused")


@pytest.mark.parametrize("status", ["exited", "dead", "paused", "removing", "stopping", "stopped"])
async def test_a_container_that_died_tells_exit_code_memory_and_last_lines(
    engine: DockerEngine, fake: FakeEngine, status: str
) -> None:
    log = b"\x01\0\0\0\0\0\0\x06line 1\x02\0\0\0\0\0\0\x0a\nlast line"
    outcome = await waited(engine, fake, {"Status": status, "ExitCode": 137, "OOMKilled": True}, log=log)
    assert outcome == StartOutcome(
        False,
        status,
        None,
        f"non-recoverable state: {status}, exit code 137, out of memory: last line",
        137,
        True,
        ["line 1", "last line"],
    )


async def test_a_container_that_could_not_be_started_says_what_the_engine_said(
    engine: DockerEngine, fake: FakeEngine
) -> None:
    outcome = await waited(engine, fake, {"Status": "exited", "ExitCode": 127, "Error": "no such file: /start.sh"})
    assert outcome.reason == "non-recoverable state: exited, exit code 127: no such file: /start.sh"


async def test_a_container_that_is_gone_is_not_found(engine: DockerEngine) -> None:
    assert await engine.wait_for_start(APP) == StartOutcome(False, "not_found", reason="container not found")


async def test_waiting_ends_at_a_limit_of_its_own(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.add(CONTAINER, "one", **RUNNING, Health={"Status": "starting"})
    outcome = await engine.wait_for_start(APP, Pace(patience=0.1, settle=0.0))
    assert (outcome.started, outcome.status, outcome.health) == (False, "running", "starting")
    assert outcome.reason == "not started within 0.1 s"


async def test_a_container_that_has_crashed_must_run_for_a_moment(engine: DockerEngine, fake: FakeEngine) -> None:
    container = fake.add(CONTAINER, "one", **RUNNING, StartedAt="now")
    container.restarts = 3
    outcome = await engine.wait_for_start(APP, Pace(patience=0.1, settle=0.0))
    assert outcome.started is False


def ago(seconds: float, zone: timezone = UTC) -> str:
    """A time in the engine's words: nanoseconds, in whatever zone."""
    then = datetime.now(zone) - timedelta(seconds=seconds)
    return then.strftime("%Y-%m-%dT%H:%M:%S.%f") + "123" + ("Z" if zone is UTC else "+02:00")


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=2))])
async def test_a_container_that_runs_already_has_started_at_the_first_look(
    engine: DockerEngine, fake: FakeEngine, zone: timezone
) -> None:
    fake.add(CONTAINER, "one", **RUNNING, StartedAt=ago(60, zone))
    assert (await engine.wait_for_start(APP, Pace(settle=30.0))).started
    assert len(fake.called("GET", f"/containers/{CONTAINER}/json")) == 1


@pytest.mark.parametrize(
    "started_at", ["", "0001-01-01T00:00:00Z", "now", "9999-12-31T23:59:59Z", "2026-13-01T00:00:00Z"]
)
async def test_how_long_it_has_run_is_ours_to_count_where_the_engine_does_not_know(
    engine: DockerEngine, fake: FakeEngine, started_at: str
) -> None:
    fake.add(CONTAINER, "one", **RUNNING, StartedAt=started_at)
    outcome = await engine.wait_for_start(APP, Pace(patience=0.1, settle=30.0))
    assert (outcome.started, outcome.status) == (False, "running")


async def test_a_crash_loop_fails_with_exit_code_and_last_line_in_plain_text(
    engine: DockerEngine, fake: FakeEngine
) -> None:
    container = fake.add(CONTAINER, "one", Status="restarting", Running=True, ExitCode=3, StartedAt=ago(1))
    container.restarts = 4
    container.log = b"\x1b[1;34mhello\x1b[0m\r\n\x1b[0mout of \x1b]0;title\x07luck\n"
    outcome = await engine.wait_for_start(APP, Pace(loop=0.0))
    assert outcome.reason == "restarted 4 times, exit code 3: out of luck"
    assert outcome.logs == ["hello", "out of luck"]


async def test_a_container_that_runs_after_crashes_may_still_make_it(engine: DockerEngine, fake: FakeEngine) -> None:
    container = fake.add(CONTAINER, "one", **RUNNING, StartedAt=ago(60))
    container.restarts = 40
    assert (await engine.wait_for_start(APP, Pace(loop=0.0))).started


async def test_what_the_health_check_says_is_not_mixed_with_the_log(engine: DockerEngine, fake: FakeEngine) -> None:
    health = {"Status": "unhealthy", "Log": [{"Output": "model is \x1b[31mnot loaded\x1b[0m\n"}]}
    outcome = await waited(engine, fake, {**RUNNING, "Health": health}, log=b"start proxy success\n")
    assert outcome.reason == "unhealthy: model is not loaded"


async def test_a_container_that_dies_at_once_has_not_started(engine: DockerEngine, fake: FakeEngine) -> None:
    container = fake.add(CONTAINER, "one")
    container.states = [RUNNING, {"Status": "exited", "ExitCode": 1}]
    outcome = await engine.wait_for_start(APP)
    assert (outcome.started, outcome.status, outcome.exit_code) == (False, "exited", 1)


async def test_an_engine_that_falls_silent_while_we_wait_ends_the_wait(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.add(CONTAINER, "one", Status="created")
    fake.silent.add(("GET", f"/containers/{CONTAINER}/json"))
    engine.inspect_limit = 0.05
    outcome = await engine.wait_for_start(APP)
    assert (outcome.started, outcome.status) == (False, "unknown")
    assert str(outcome.reason).startswith("overall timeout: ")


async def test_an_engine_that_breaks_while_we_wait_is_an_error(engine: DockerEngine, fake: FakeEngine) -> None:
    fake.errors["GET", f"/containers/{CONTAINER}/json"] = (500, "broken")
    with pytest.raises(EngineRefused, match=r"^broken"):
        await engine.wait_for_start(APP)


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (b"", []),
        (b"plain\r\nfrom a terminal\n", ["plain", "from a terminal"]),
        (b"\x01\0\0\0\0\0\0\x03ab\n\x02\0\0\0\0\0\0\x02\xff\n", ["ab", "\N{REPLACEMENT CHARACTER}"]),
        (b"\x01\0\0\0\0\0\0\x09cut", ["cut"]),
        (b"\x01\0\0", []),
    ],
)
def test_logs_are_read_with_and_without_frames(raw: bytes, lines: list[str]) -> None:
    assert log_lines(raw, 20) == lines
