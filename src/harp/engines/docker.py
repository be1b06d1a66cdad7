"""One Docker or podman engine: its API over any connection that we can make (A 4.6, A 6.4).

Every request goes through `call`, and only there fails. Import this module off the hot path: its HTTP client costs a
fifth of a second.
"""

from __future__ import annotations

import asyncio
import io
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
import structlog
from msgspec import Struct
from yarl import URL

from harp import __version__
from harp.engines.archive import pack, unpack
from harp.engines.connector import Dial, DialerConnector
from harp.engines.errors import (
    EngineConflict,
    EngineError,
    EngineMissing,
    EngineRefused,
    EngineTimeout,
    EngineUnreachable,
    ForeignOwner,
)
from harp.engines.facts import EngineFacts
from harp.engines.provision import TUNNEL_DIRECTORY, provide, tunnel_files
from harp.engines.verbs import Created, Deleted, Started
from harp.net.targets import Target
from harp.policy.containers import OWNER_LABEL, Names, Owner, Plan
from harp.policy.engines import WANTED, ApiRange, version_of
from harp.policy.trust import File

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

T = TypeVar("T")

CALL = 60.0  # seconds for one call, unless it says otherwise
LARGEST_ANSWER = 32 << 20  # bytes
LONGEST_MESSAGE = 1000  # characters of the engine's own words
STOP_GRACE = 5  # seconds a container has to end before it is removed
STOP_MARGIN = 20.0  # seconds on top of a container's own grace
USUAL_GRACE = 10  # seconds, Docker's
LONGEST_GRACE = 90  # seconds
POLL = (0.05, 0.1, 0.15, 0.2, 0.4)  # seconds between looks, the last one for good
CLEAN_UP = 10.0  # seconds for undoing what a failed create has done
LAST_LINES = 20
PODMAN_HEALTH = 2.0  # seconds between health checks that we start ourselves

LIBPOD = "/v4.0.0/libpod"  # podman's own API
FALLBACK = ApiRange((1, 24), (1, 41))  # of an engine that does not say


class Pace(Struct, frozen=True):
    """How a start is waited for, in seconds."""

    patience: float = 90.0  # until a container must run and be healthy (A 4.6.5)
    settle: float = 0.4  # that one without a health check must run before we believe it: many die at once
    steady: float = 2.0  # the same after a crash


USUAL = Pace()


class Answer(Struct, frozen=True):
    """What the engine said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Reply(Struct, frozen=True, rename="pascal"):
    """Base of the JSON that engines send; absent and unknown keys are fine."""


class _Component(_Reply, frozen=True):
    name: str = ""


class _Version(_Reply, frozen=True):
    version: str = ""
    api_version: str = ""
    min_api_version: str = msgspec.field(default="", name="MinAPIVersion")
    components: list[_Component] | None = None


class _Check(_Reply, frozen=True):
    output: str = ""


class _Health(_Reply, frozen=True):
    status: str = ""
    log: list[_Check] | None = None


class State(_Reply, frozen=True):
    """What a container does."""

    status: str = ""
    running: bool = False
    exit_code: int = 0
    oom_killed: bool = msgspec.field(default=False, name="OOMKilled")
    error: str = ""
    started_at: str = ""
    health: _Health | None = None


class _Config(_Reply, frozen=True):
    image: str = ""
    labels: dict[str, str] | None = None
    stop_timeout: int | None = None


class Container(_Reply, frozen=True):
    """What the engine tells of a container."""

    id: str = ""
    name: str = ""
    image: str = ""
    restart_count: int = 0
    config: _Config = _Config()
    state: State = State()


class _Volume(_Reply, frozen=True):
    labels: dict[str, str] | None = None


class _Made(_Reply, frozen=True):
    id: str = ""


class _Listed(_Reply, frozen=True):
    id: str = ""


class _Image(_Reply, frozen=True):
    size: int = 0


class _Trouble(Struct, frozen=True):
    """An error's body. Docker says `message`; podman adds `cause` and `response`."""

    message: str = ""


class DockerEngine:
    """The engine behind `target`. `facts` are known once `ask` has been answered."""

    def __init__(
        self, name: str, target: Target, dialer: Dial, owner: Owner, frp_directory: Path | None, *, connect: float
    ) -> None:
        self.name = name
        self.facts: EngineFacts | None = None
        self._owner = owner
        self._frp_directory = frp_directory  # with the tunnel's certificates; None = the tunnel has none
        self._session = aiohttp.ClientSession(
            connector=DialerConnector(dialer, target, name, connect),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Drop all connections."""
        await self._session.close()

    # Calls

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        data: bytes | None = None,
        versioned: bool = True,
        limit: float = CALL,
    ) -> Answer:
        """Make one request. `path` is quoted already; `body` goes as JSON, `data` as a tar archive.

        Raises EngineTimeout after `limit` seconds, EngineUnreachable, or EngineRefused for every status from 400.
        """
        url = URL(f"http://engine{self._prefix if versioned else ''}{path}", encoded=True).with_query(query)
        kind = "application/json" if data is None else "application/x-tar"
        headers = {"content-type": kind, "accept-encoding": "identity"}  # archives are gzipped for whoever takes it
        content = data if body is None else msgspec.json.encode(body)
        payload = None if content is None else io.BytesIO(content)  # sent piece by piece
        where = f"{method} {path} on {self.name}"
        try:
            async with (
                asyncio.timeout(limit),
                self._session.request(method, url, data=payload, headers=headers, allow_redirects=False) as response,
            ):
                answer = Answer(response.status, response.headers, await _content(response, where))
        except TimeoutError as error:
            raise EngineTimeout(f"{where}: no answer within {limit:g} s") from error
        except (OSError, aiohttp.ClientError) as error:
            raise EngineUnreachable(f"{where}: the connection broke: {error or type(error).__name__}") from error
        log.debug("engine call", engine=self.name, method=method, path=path, status=answer.status)
        if answer.status >= 400:
            raise _refusal(answer, where)
        return answer

    @property
    def _prefix(self) -> str:
        if self.facts is None:
            return ""
        major, minor = self.facts.api.nearest(WANTED)
        return f"/v{major}.{minor}"

    @property
    def _podman(self) -> bool:
        return self.facts is not None and self.facts.podman

    async def ask(self, limit: float) -> EngineFacts:
        """Learn what the engine is; every further call is made in a version that it takes."""
        said = _read((await self.call("GET", "/version", versioned=False, limit=limit)).body, _Version)
        high = version_of(said.api_version) or FALLBACK.high
        low = version_of(said.min_api_version) or min(FALLBACK.low, high)
        podman = any("podman" in component.name.lower() for component in said.components or ())
        self.facts = EngineFacts(said.version, ApiRange(low, high), podman)
        return self.facts

    @asynccontextmanager
    async def _within(self, seconds: float, task: str) -> AsyncIterator[None]:
        """A limit for several calls together."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise EngineTimeout(f"{self.name} did not {task} within {seconds:g} s") from error

    # Verbs, as Deployer

    async def exists(self, names: Names) -> str | None:
        async with self._within(15, f"inspect {names.container}"):
            container = await self._inspect(names)
        return None if container is None else container.config.image or container.image

    async def create(self, plan: Plan) -> Created:
        names = plan.names
        async with self._within(60, f"create {names.container}"):
            made = await self._provide_volume(names)
            try:
                return await self._create(plan)
            except BaseException:
                if made:
                    await self._undo(names.volume)
                raise

    async def _provide_volume(self, names: Names) -> bool:
        """Have a data volume of ours; was it made now?"""
        volume = names.volume
        present = await self._volume(volume)
        if present is None:
            labels = self._owner.labels(names, __version__)
            answer = await self.call("POST", "/volumes/create", body={"Name": volume, "Labels": labels})
            made = _read(answer.body, _Volume)  # of somebody else, should he have been faster
            self._check(f"volume {volume}", made.labels)
            log.info("volume made", engine=self.name, volume=volume)
            return True
        self._check(f"volume {volume}", present.labels)
        return False

    async def _create(self, plan: Plan) -> Created:
        name = plan.names.container
        labels = self._owner.labels(plan.names, __version__)
        try:
            if self._podman and plan.device == "cuda":
                body = plan.podman_body(labels)
                answer = await self.call("POST", f"{LIBPOD}/containers/create", body=body, versioned=False)
            else:
                body = plan.body(labels)
                answer = await self.call("POST", "/containers/create", query={"name": name}, body=body)
        except EngineMissing as error:  # the image, not the container: no 404 of ours
            raise EngineRefused(error.status, error.message, f"create on {self.name}") from error
        except EngineRefused as error:
            if await self.inspect(plan.names) is None:
                raise
            raise EngineConflict(409, error.message, f"create on {self.name}") from error  # podman says 500
        made = _read(answer.body, _Made)
        log.info("container made", engine=self.name, container=name, image=plan.image)
        return Created(made.id, name)

    async def _undo(self, volume: str) -> None:
        """Remove the volume of a container that did not come to be; it is empty."""
        try:
            await self.call("DELETE", f"/volumes/{volume}", limit=CLEAN_UP)
        except EngineError as error:
            log.warning("volume left behind", engine=self.name, volume=volume, reason=str(error))

    async def start(self, names: Names) -> bool:
        async with self._within(30, f"start {names.container}"):
            await self._own(names)
            answer = await self.call("POST", f"/containers/{names.container}/start")
        log.info("container started", engine=self.name, container=names.container, already=answer.status == 304)
        return answer.status != 304

    async def stop(self, names: Names) -> bool:
        async with self._within(LONGEST_GRACE + STOP_MARGIN, f"stop {names.container}"):
            container = await self._own(names)
            grace = min(container.config.stop_timeout or USUAL_GRACE, LONGEST_GRACE)
            query = {"t": str(grace)} if self._podman else None  # it kills at once what was made through its API
            path = f"/containers/{names.container}/stop"
            answer = await self.call("POST", path, query=query, limit=grace + STOP_MARGIN)
        log.info("container stopped", engine=self.name, container=names.container, already=answer.status == 304)
        return answer.status != 304

    async def wait_for_start(self, names: Names, pace: Pace = USUAL) -> Started:
        return await StartWatch(self, names, pace).run()

    async def remove(self, names: Names, *, data: bool) -> None:
        async with self._within(30, f"remove {names.container}"):
            container = await self._inspect(names)
            if container is not None:
                self._check(f"container {names.container}", container.config.labels)
            volume = await self._volume(names.volume) if data else None
            if volume is not None:
                self._check(f"volume {names.volume}", volume.labels)
            if container is not None:
                await self._remove_container(names, running=container.state.running)
            if volume is not None:
                with suppress(EngineMissing):
                    await self.call("DELETE", f"/volumes/{names.volume}")
                    log.info("volume removed", engine=self.name, volume=names.volume)

    async def _remove_container(self, names: Names, *, running: bool) -> None:
        """Remove it and wait until its name is free: a create follows."""
        path = f"/containers/{names.container}"
        if running:
            with suppress(EngineRefused):  # a chance to end in order; what follows ends it anyway
                await self.call("POST", f"{path}/stop", query={"t": str(STOP_GRACE)})
        with suppress(EngineMissing, EngineConflict):  # gone, or on its way
            await self.call("DELETE", path, query={"force": "true"})
        for delay in _delays():
            if await self._inspect(names) is None:
                break
            await asyncio.sleep(delay)
        log.info("container removed", engine=self.name, container=names.container)

    async def image_remove(self, reference: str) -> Deleted:
        path = f"/images/{quote(reference, safe='')}"
        async with self._within(30, f"remove the image {reference}"):
            try:
                size = _read((await self.call("GET", f"{path}/json")).body, _Image).size
                removed = _read((await self.call("DELETE", path)).body, list[dict[str, str]])
            except EngineMissing:
                return Deleted(deleted=True, bytes_freed=0, reason="not_found")
            except EngineConflict as error:
                log.info("image kept", engine=self.name, image=reference, reason=error.message)
                return Deleted(deleted=False, reason="in_use")
        log.info("image removed", engine=self.name, image=reference)
        return Deleted(deleted=True, bytes_freed=size if any("Deleted" in entry for entry in removed) else 0)

    async def install_certificates(self, names: Names, bundle: str, *, tunnel: bool) -> None:
        async with self._within(120, f"install certificates in {names.container}"):
            await self._own(names)
            extra = await self._tunnel_files() if tunnel else []
            await provide(self, names.container, bundle, extra)

    async def renew_tunnel_files(self) -> int:
        """Replace the tunnel's files in all our containers that have them; how many those are."""
        files = await self._tunnel_files()
        renewed = 0
        for container in await self.own_containers() if files else []:
            if await self.present(container, TUNNEL_DIRECTORY):
                await self.write(container, [], files)
                renewed += 1
        return renewed

    # Parts of verbs

    async def _tunnel_files(self) -> list[File]:
        return [] if self._frp_directory is None else await asyncio.to_thread(tunnel_files, self._frp_directory)

    async def inspect(self, names: Names) -> Container | None:
        """The container as it is, None without one. Raises ForeignOwner when it is not ours."""
        container = await self._inspect(names)
        if container is not None:
            self._check(f"container {names.container}", container.config.labels)
        return container

    async def _inspect(self, names: Names) -> Container | None:
        try:
            answer = await self.call("GET", f"/containers/{names.container}/json", limit=15)
        except EngineMissing:
            return None
        return _read(answer.body, Container)

    async def _own(self, names: Names) -> Container:
        container = await self.inspect(names)
        if container is None:
            raise EngineMissing(404, f"No such container: {names.container}", self.name)
        return container

    async def _volume(self, name: str) -> _Volume | None:
        try:
            return _read((await self.call("GET", f"/volumes/{name}")).body, _Volume)
        except EngineMissing:
            return None

    def _check(self, what: str, labels: Mapping[str, str] | None) -> None:
        objection = self._owner.objection(what, labels)
        if objection:
            raise ForeignOwner(objection)

    async def own_containers(self) -> list[str]:
        """The ids of all containers, running or not, that carry our label."""
        filters = msgspec.json.encode({"label": [f"{OWNER_LABEL}={self._owner.instance}"]}).decode()
        answer = await self.call("GET", "/containers/json", query={"all": "true", "filters": filters})
        return [entry.id for entry in _read(answer.body, list[_Listed])]

    async def last_words(self, container: str) -> list[str]:
        """The last lines that a container has written, oldest first; [] when there are none to be had."""
        query = {"stdout": "true", "stderr": "true", "tail": str(LAST_LINES)}
        try:
            answer = await self.call("GET", f"/containers/{container}/logs", query=query, limit=10)
        except EngineError as error:
            log.info("no container log", engine=self.name, container=container, reason=str(error))
            return []
        return log_lines(answer.body)[-LAST_LINES:]

    async def check_health(self, container: str) -> None:
        """Have podman run a container's health check: it needs systemd to do so by itself, which may not be there."""
        if self._podman:
            with suppress(EngineError):
                await self.call("GET", f"{LIBPOD}/containers/{container}/healthcheck", versioned=False, limit=10)

    # Files of containers

    async def read(self, container: str, path: str) -> list[File] | None:
        """What is at `path`, the container running or not: a file, a link, or a directory's files; None = nothing."""
        try:
            answer = await self.call("GET", f"/containers/{container}/archive", query={"path": path})
        except EngineMissing:
            return None
        return await asyncio.to_thread(unpack, answer.body, path)

    async def present(self, container: str, path: str) -> bool:
        """Is there anything at `path`?"""
        try:
            await self.call("HEAD", f"/containers/{container}/archive", query={"path": path})
        except EngineMissing:
            return False
        return True

    async def write(self, container: str, directories: Sequence[str], files: Sequence[File]) -> None:
        """Put files in place, replacing what is there; `directories` are those to be made."""
        data = await asyncio.to_thread(pack, directories, files, time.time())
        await self.call("PUT", f"/containers/{container}/archive", query={"path": "/"}, data=data)


class StartWatch:
    """Looks at a container until it has started, or cannot any more (A 4.6.5)."""

    def __init__(self, engine: DockerEngine, names: Names, pace: Pace) -> None:
        self._engine = engine
        self._names = names
        self._pace = pace
        self._now = asyncio.get_running_loop().time
        self._until = self._now() + pace.patience
        self._seen: tuple[str | None, float] = (None, 0.0)  # when the container was started, and since when we know
        self._checked = self._now()

    async def run(self) -> Started:
        """The outcome, after our patience and a last look at the latest."""
        delays = _delays()
        while True:
            container = await self._look()
            if container is None:
                return Started(False, "not_found", reason="container not found")
            outcome = await self._outcome(container)
            if outcome is not None:
                return outcome
            if self._now() >= self._until:
                return await self._failed(container, f"not started within {self._pace.patience:g} s")
            await self._nudge(container.state)
            await asyncio.sleep(next(delays))

    async def _look(self) -> Container | None:
        return await self._engine.inspect(self._names)

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
        if state.status in ("paused", "exited", "dead"):
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


async def _content(response: aiohttp.ClientResponse, where: str) -> bytes:
    """The whole body. Raises EngineError when it is larger than any that we ask for."""
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > LARGEST_ANSWER:
            raise EngineError(f"{where}: an answer of more than {LARGEST_ANSWER} bytes")
    return bytes(content)


def _read(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.DecodeError as error:
        raise EngineError(f"the engine's answer is not what its API promises: {error}") from error


def _refusal(answer: Answer, where: str) -> EngineRefused:
    kind = {404: EngineMissing, 409: EngineConflict}.get(answer.status, EngineRefused)
    return kind(answer.status, message_of(answer.body), where)


def message_of(body: bytes) -> str:
    """The engine's own words on one line."""
    try:
        text = msgspec.json.decode(body, type=_Trouble).message
    except msgspec.DecodeError:
        text = body.decode("utf-8", "replace")
    return " ".join(text.split())[:LONGEST_MESSAGE] or "no reason given"


_FRAME = re.compile(rb"[\x00-\x02]\x00\x00\x00")


def log_lines(raw: bytes) -> list[str]:
    """A container's log, which is framed unless it has a terminal (A 3), as lines."""
    parts = []
    if _FRAME.match(raw):
        at = 0
        while at + 8 <= len(raw):
            size = int.from_bytes(raw[at + 4 : at + 8])
            parts.append(raw[at + 8 : at + 8 + size])
            at += 8 + size
    text = (b"".join(parts) or raw).decode("utf-8", "replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _delays() -> Iterator[float]:
    yield from POLL
    while True:
        yield POLL[-1]
