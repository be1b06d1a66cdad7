"""One Docker or podman engine: its API over any connection that we can make (A 4.6, A 6.4).

Every request goes through `call`, and only there fails. Import this module off the hot path: its HTTP client costs a
fifth of a second.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import aiohttp
import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace
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
from harp.engines.replies import Container, Image, Listed, Made, Version, Volume, log_lines, message_of, parse
from harp.engines.start import USUAL, Pace, StartWatch, delays
from harp.engines.verbs import Created, Deleted, Started
from harp.net.targets import Target
from harp.policy.ca_stores import File
from harp.policy.container import OWNER_LABEL, Names, Owner, Plan
from harp.policy.docker_api import WANTED, ApiRange, version_of
from harp.policy.registries import NONE, Registries

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

INSPECT = 15.0  # seconds for a look at a container
CALL = 60.0  # seconds for one call, unless it says otherwise
LARGEST_ANSWER = 32 << 20  # bytes
STOP_GRACE = 5  # seconds a container has to end before it is removed
STOP_MARGIN = 20.0  # seconds on top of a container's own grace
USUAL_GRACE = 10  # seconds, Docker's
LONGEST_GRACE = 90  # seconds
CLEAN_UP = 10.0  # seconds for undoing what a failed create has done
LAST_LINES = 20

LIBPOD = "/v4.0.0/libpod"  # podman's own API
FALLBACK = ApiRange((1, 24), (1, 41))  # of an engine that does not say


class Answer(Struct, frozen=True):
    """What the engine said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class DockerEngine:
    """The engine behind `target`. `facts` are known once `ask` has been answered."""

    def __init__(
        self,
        name: str,
        target: Target,
        dialer: Dial,
        owner: Owner,
        frp_directory: Path | None = None,
        registries: Registries = NONE,
        *,
        connect: float,
    ) -> None:
        self.name = name
        self.inspect_limit = INSPECT  # seconds
        self.facts: EngineFacts | None = None
        self._owner = owner
        self._registries = registries
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
        content = data if body is None else msgspec.json.encode(body)
        kind = "application/json" if data is None else "application/x-tar"
        try:
            return await self._call(method, path, query, content, kind, versioned=versioned, limit=limit)
        except EngineRefused as error:
            if not versioned or error.status != 400 or "client version" not in error.message:
                raise
        await self.ask(limit)  # another engine has taken its place, and takes other versions
        return await self._call(method, path, query, content, kind, versioned=versioned, limit=limit)

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        content: bytes | None,
        kind: str,
        *,
        versioned: bool,
        limit: float,
    ) -> Answer:
        url = URL(f"http://engine{self._prefix if versioned else ''}{path}", encoded=True).with_query(query)
        headers = {"content-type": kind, "accept-encoding": "identity"}  # archives are gzipped for whoever takes it
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
        said = parse((await self.call("GET", "/version", versioned=False, limit=limit)).body, Version)
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
        async with self._within(INSPECT, f"inspect {names.container}"):
            container = await self._inspect(names)
        return None if container is None else container.config.image or container.image

    async def create(self, plan: Plan) -> Created:
        plan = replace(plan, image=self._registries.mirrored(plan.image))
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
            made = parse(answer.body, Volume)  # of somebody else, should he have been faster
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
        made = parse(answer.body, Made)
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
        for delay in delays():
            if await self._inspect(names) is None:
                break
            await asyncio.sleep(delay)
        log.info("container removed", engine=self.name, container=names.container)

    async def image_remove(self, reference: str) -> Deleted:
        path = f"/images/{quote(self._registries.mirrored(reference), safe='')}"
        async with self._within(30, f"remove the image {reference}"):
            try:
                size = parse((await self.call("GET", f"{path}/json")).body, Image).size
                removed = parse((await self.call("DELETE", path)).body, list[dict[str, str]])
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
            answer = await self.call("GET", f"/containers/{names.container}/json", limit=self.inspect_limit)
        except EngineMissing:
            return None
        return parse(answer.body, Container)

    async def _own(self, names: Names) -> Container:
        container = await self.inspect(names)
        if container is None:
            raise EngineMissing(404, f"No such container: {names.container}", self.name)
        return container

    async def _volume(self, name: str) -> Volume | None:
        try:
            return parse((await self.call("GET", f"/volumes/{name}")).body, Volume)
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
        return [entry.id for entry in parse(answer.body, list[Listed])]

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


async def _content(response: aiohttp.ClientResponse, where: str) -> bytes:
    """The whole body. Raises EngineError when it is larger than any that we ask for."""
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > LARGEST_ANSWER:
            raise EngineError(f"{where}: an answer of more than {LARGEST_ANSWER} bytes")
    return bytes(content)


def _refusal(answer: Answer, where: str) -> EngineRefused:
    kind = {404: EngineMissing, 409: EngineConflict}.get(answer.status, EngineRefused)
    return kind(answer.status, message_of(answer.body), where)
