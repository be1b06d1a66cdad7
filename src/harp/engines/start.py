"""Poll a container until it has started or failed (A 4.6.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

import structlog
from msgspec import Struct

from harp.engines.errors import EngineTimeout
from harp.engines.replies import Container, ContainerState, words
from harp.engines.verbs import StartOutcome
from harp.policy.container import Names

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

POLL = (0.05, 0.1, 0.15, 0.2, 0.4)  # seconds between looks, the last one for good
OVER = frozenset(("paused", "exited", "dead", "removing", "stopping", "stopped"))  # the last two are podman's
RESTARTS = 4  # after which a container that is not running is taken for one that never will be
LOOP = 3.0  # seconds at least that we watch it for that: podman restarts without a pause
PODMAN_HEALTH = 2.0  # seconds between health checks that we start ourselves


class Pace(Struct, frozen=True):
    """How to wait for a start, in seconds."""

    patience: float = 90.0  # until a container must run and be healthy (A 4.6.5)
    settle: float = 0.1  # that one without a health check must run before we believe it: some die at once
    steady: float = 2.0  # the same after a crash
    loop: float = LOOP


USUAL = Pace()


class WatchedEngine(Protocol):
    """What watching needs: `DockerEngine`."""

    async def inspect(self, names: Names) -> Container | None:
        """Return the container as it is, None without one."""
        ...

    async def last_words(self, container: str) -> list[str]:
        """Return the last lines that a container has written."""
        ...

    async def check_health(self, container: str) -> None:
        """Run the health check, if the engine does not do so by itself."""
        ...


class StartWatch:
    """Poll a container until it has started or failed (A 4.6.5)."""

    def __init__(self, engine: WatchedEngine, names: Names, pace: Pace) -> None:
        self._engine = engine
        self._names = names
        self._pace = pace
        self._now = asyncio.get_running_loop().time
        self._began = self._now()
        self._until = self._began + pace.patience
        self._running: tuple[str | None, float] = (
            None,
            0.0,
        )  # its latest start, and when that was for us
        self._checked = self._now()

    async def run(self) -> StartOutcome:
        """Return the outcome, after our patience and a last poll at the latest."""
        pauses = delays()
        last = Container()
        while True:
            try:
                container = await self._engine.inspect(self._names)
            except EngineTimeout as error:
                return StartOutcome(
                    False, last.state.status or "unknown", _health(last.state), f"overall timeout: {error}"
                )
            if container is None:
                return StartOutcome(False, "not_found", reason="container not found")
            last = container
            outcome = await self._outcome(container)
            if outcome is not None:
                return outcome
            if self._now() >= self._until:
                return await self._failed(container, f"not started within {self._pace.patience:g} s")
            await self._nudge(container.state)
            await asyncio.sleep(self._pause(container, next(pauses)))

    async def _outcome(self, container: Container) -> StartOutcome | None:
        state = container.state
        health = _health(state)
        if state.status == "running" and health == "healthy":
            return StartOutcome(True, "running", health)
        if state.status == "running" and health is None:
            return StartOutcome(True, "running", None) if self._until_settled(container) <= 0 else None
        if state.status == "running" and health == "unhealthy":
            checks = state.health.log if state.health else None
            said = checks[-1].output.strip() if checks else ""
            said = words(said)[:200]
            return await self._failed(container, f"unhealthy: {said}" if said else "unhealthy", explained=bool(said))
        if state.status in OVER:
            return await self._failed(container, f"non-recoverable state: {state.status}")
        if container.restart_count >= RESTARTS and self._now() - self._began >= self._pace.loop:
            return await self._failed(container, f"restarted {container.restart_count} times")
        return None

    def _pause(self, container: Container, usual: float) -> float:
        """Return how long to wait before the next poll: until it has settled, if nothing else is missing."""
        if container.state.status != "running" or _health(container.state) is not None:
            return usual
        return min(usual, max(self._until_settled(container), 0.0))

    def _until_settled(self, container: Container) -> float:
        """Return how many more seconds it has to run before it counts as started.

        The engine knows how long it has run; from then on we count ourselves.
        """
        started, since = self._running
        if started != container.state.started_at:
            since = self._now() - container.ran_for()
            self._running = (container.state.started_at, since)
        needed = self._pace.steady if container.restart_count else self._pace.settle
        return since + needed - self._now()

    async def _nudge(self, state: ContainerState) -> None:
        if _health(state) == "starting" and self._now() - self._checked >= PODMAN_HEALTH:
            self._checked = self._now()
            await self._engine.check_health(self._names.container)

    async def _failed(self, container: Container, reason: str, *, explained: bool = False) -> StartOutcome:
        """Return that it has not started, with everything that explains it, unless `reason` says it all."""
        state = container.state
        logs = await self._engine.last_words(self._names.container)
        if state.status != "running":
            reason += f", exit code {state.exit_code}"
        if state.oom_killed:
            reason += ", out of memory"
        said = "" if explained else words(state.error) or (logs[-1] if logs else "")
        log.warning("container not started", container=self._names.container, reason=reason, said=said)
        return StartOutcome(
            False,
            state.status,
            _health(state),
            f"{reason}: {said}" if said else reason,
            state.exit_code,
            state.oom_killed,
            logs,
        )


def _health(state: ContainerState) -> str | None:
    """Return the health of a container; podman says "" where there is no check, some engines "none" (A 9.3 no. 39)."""
    status = state.health.status if state.health else ""
    return None if status in ("", "none") else status


def delays() -> Iterator[float]:
    """Yield how long to wait before each poll, in seconds."""
    yield from POLL
    while True:
        yield POLL[-1]
