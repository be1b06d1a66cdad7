"""Has a container started? Looks at it until it has, or cannot any more (A 4.6.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

import structlog
from msgspec import Struct

from harp.engines.errors import EngineTimeout
from harp.engines.replies import Container, State
from harp.engines.verbs import Started
from harp.policy.container import Names

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

POLL = (0.05, 0.1, 0.15, 0.2, 0.4)  # seconds between looks, the last one for good
OVER = frozenset(("paused", "exited", "dead", "removing", "stopping", "stopped"))  # the last two are podman's
PODMAN_HEALTH = 2.0  # seconds between health checks that we start ourselves


class Pace(Struct, frozen=True):
    """How a start is waited for, in seconds."""

    patience: float = 90.0  # until a container must run and be healthy (A 4.6.5)
    settle: float = 0.4  # that one without a health check must run before we believe it: many die at once
    steady: float = 2.0  # the same after a crash


USUAL = Pace()


class Engine(Protocol):
    """What watching needs: `DockerEngine`."""

    async def inspect(self, names: Names) -> Container | None:
        """The container as it is, None without one."""
        ...

    async def last_words(self, container: str) -> list[str]:
        """The last lines that a container has written."""
        ...

    async def check_health(self, container: str) -> None:
        """Have the health check run, where the engine does not by itself."""
        ...


class StartWatch:
    """Looks at a container until it has started, or cannot any more (A 4.6.5)."""

    def __init__(self, engine: Engine, names: Names, pace: Pace) -> None:
        self._engine = engine
        self._names = names
        self._pace = pace
        self._now = asyncio.get_running_loop().time
        self._until = self._now() + pace.patience
        self._seen: tuple[str | None, float] = (None, 0.0)  # when the container was started, and since when we know
        self._checked = self._now()

    async def run(self) -> Started:
        """The outcome, after our patience and a last look at the latest."""
        pauses = delays()
        last = Container()
        while True:
            try:
                container = await self._engine.inspect(self._names)
            except EngineTimeout as error:
                return Started(False, last.state.status or "unknown", _health(last.state), f"overall timeout: {error}")
            if container is None:
                return Started(False, "not_found", reason="container not found")
            last = container
            outcome = await self._outcome(container)
            if outcome is not None:
                return outcome
            if self._now() >= self._until:
                return await self._failed(container, f"not started within {self._pace.patience:g} s")
            await self._nudge(container.state)
            await asyncio.sleep(next(pauses))

    async def _outcome(self, container: Container) -> Started | None:
        state = container.state
        health = _health(state)
        if state.status == "running" and health == "healthy":
            return Started(True, "running", health)
        if state.status == "running" and health is None:
            return Started(True, "running", None) if self._has_settled(container) else None
        if state.status == "running" and health == "unhealthy":
            checks = state.health.log if state.health else None
            said = checks[-1].output.strip() if checks else ""
            return await self._failed(container, f"unhealthy: {said[:200]}" if said else "unhealthy")
        if state.status in OVER:
            return await self._failed(container, f"non-recoverable state: {state.status}")
        return None

    def _has_settled(self, container: Container) -> bool:
        """Has it run for long enough since its latest start?"""
        started, since = self._seen
        if started != container.state.started_at:
            self._seen = (container.state.started_at, self._now())
            return False
        return self._now() - since >= (self._pace.steady if container.restart_count else self._pace.settle)

    async def _nudge(self, state: State) -> None:
        if _health(state) == "starting" and self._now() - self._checked >= PODMAN_HEALTH:
            self._checked = self._now()
            await self._engine.check_health(self._names.container)

    async def _failed(self, container: Container, reason: str) -> Started:
        """Not started, with everything that tells why."""
        state = container.state
        logs = await self._engine.last_words(self._names.container)
        if not state.running:
            reason += f", exit code {state.exit_code}"
        if state.oom_killed:
            reason += ", out of memory"
        said = state.error or (logs[-1] if logs else "")
        log.warning("container not started", container=self._names.container, reason=reason, said=said)
        return Started(
            False,
            state.status,
            _health(state),
            f"{reason}: {said}" if said else reason,
            state.exit_code,
            state.oom_killed,
            logs,
        )


def _health(state: State) -> str | None:
    """The health of a container; podman says "" where there is no check, some engines "none" (A 9.3 no. 39)."""
    status = state.health.status if state.health else ""
    return None if status in ("", "none") else status


def delays() -> Iterator[float]:
    """How long to wait before each next look, in seconds."""
    yield from POLL
    while True:
        yield POLL[-1]
