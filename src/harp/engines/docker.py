"""One Docker or podman engine: the deploy verbs (A 4.6, A 6.4), and the calls of AppAPI that HaRP forwards (A 3)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import aiohttp
import msgspec
import structlog
from msgspec.structs import replace

from harp import __version__
from harp.engines.api import EngineAnswer, EngineApi
from harp.engines.connector import DialFunction
from harp.engines.errors import EngineConflict, EngineError, EngineMissing, EngineRefused, ForeignOwner
from harp.engines.facts import EngineFacts
from harp.engines.files import ContainerFiles
from harp.engines.links import first_link
from harp.engines.provision import TUNNEL_DIRECTORY, provide, tunnel_files
from harp.engines.pulls import PullErrors
from harp.engines.replies import Container, Created, Image, Info, Listed, Volume, clock_of, log_lines, parse
from harp.engines.start import USUAL, Pace, StartWatch, delays
from harp.engines.verbs import CreatedContainer, DeletedImage, StartOutcome
from harp.net.targets import Target
from harp.policy.ca_stores import File
from harp.policy.container import OWNER_LABEL, CreatePlan, Names, Owner
from harp.policy.docker_api import EngineRequest
from harp.policy.registries import NONE, Registries

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

PING = 2.5  # seconds for _ping: AppAPI gives up after 3 (A 6.2)
INSPECT = 15.0  # seconds for a look at a container or an image
STOP_GRACE = 5  # seconds a container has to end before it is removed
STOP_MARGIN = 20.0  # seconds on top of a container's own grace
USUAL_GRACE = 10  # seconds, Docker's
LONGEST_GRACE = 90  # seconds
CLEAN_UP = 10.0  # seconds for undoing what a failed create has done
LAST_LINES = 20
USUAL_RUNTIMES = frozenset(("runc", "io.containerd.runc.v2", "crun"))  # for anything but GPUs
LARGEST_LOG = 256 << 10  # bytes of the last lines
LARGEST_LIST = 8 << 20  # bytes of a list of containers

LIBPOD = "/v4.0.0/libpod"  # podman's own API


class DockerEngine:
    """The engine behind `target`. It takes calls once `ask` has been answered.

    More than 25 methods, because AppAPI has eight verbs and a dozen calls; each is one method and at most a few parts.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        dialer: DialFunction,
        owner: Owner,
        frp_directory: Path | None = None,
        registries: Registries = NONE,
        *,
        connect: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.inspect_limit = INSPECT  # seconds
        self.api = EngineApi(name, target, dialer, connect)
        self.files = ContainerFiles(self.api)
        self.pulls = PullErrors(name, now)
        self._owner = owner
        self._registries = registries
        self._frp_directory = frp_directory  # with the tunnel's certificates; None = the tunnel has none

    @property
    def facts(self) -> EngineFacts | None:
        """What is known of the engine."""
        return self.api.facts

    def forget(self) -> None:
        """Learn again what the engine is before the next call."""
        self.api.facts = None

    async def ask(self, limit: float) -> EngineFacts:
        """Learn what the engine is; every further call is made in a version that it supports."""
        return await self.api.ask(limit)

    async def gpu_runtimes(self) -> list[str]:
        """Return the engine's support for GPUs: runtimes such as nvidia, and directories of CDI devices."""
        said = parse((await self.api.call("GET", "/info")).body, Info)
        return [*(name for name in said.runtimes or () if name not in USUAL_RUNTIMES), *(said.cdi_spec_dirs or ())]

    async def close(self) -> None:
        """Drop all connections."""
        await self.api.close()

    # Calls that pass

    async def answer(self, request: EngineRequest) -> EngineAnswer:
        """Make a small request of a caller and return the engine's answer as it is, refusals included.

        Raises ForeignOwner for a container that is not ours, before anything of it is shown.
        """
        image, _ = self._registries.ask(request)
        answer = await self.api.pass_whole(image, PING if request.is_ping else self.inspect_limit)
        if request.container and answer.status == 200:
            container = await asyncio.to_thread(parse, answer.body, Container)
            self._check(f"container {request.container}", container.config.labels)
        return answer

    async def stream(
        self, request: EngineRequest, login: bytes, *, head: float, silence: float
    ) -> aiohttp.ClientResponse | EngineAnswer:
        """Make a caller's request whose answer is passed on while it arrives; the caller closes it.

        `login` is the caller's X-Registry-Auth; without one, HaRP's is used. Logs are those of exactly the container
        that was seen to be ours, even if another one has its name by then.
        """
        if request.container:
            looked = await self.answer(request.inspection())
            if looked.status != 200:
                return looked
            request = request.of_container(parse(looked.body, Container).id)
        wanted, ours = self._registries.ask(request)
        return await self.api.open_stream(wanted, login or ours, head=head, silence=silence)

    # Verbs, as Deployer

    async def exists(self, names: Names) -> str | None:
        async with self.api.within(INSPECT, f"inspect {names.container}"):
            container = await self.inspect(names)
        return None if container is None else container.config.image or container.image

    async def first_link(self, image: str, root: str, path: str) -> str | None:
        async with self.api.within(INSPECT, f"look for links in {path}"):
            return await first_link(self.api, self._registries.mirrored(image), root, path)

    async def create(self, plan: CreatePlan) -> CreatedContainer:
        asked, plan = plan.image, replace(plan, image=self._registries.mirrored(plan.image))
        names = plan.names
        async with self.api.within(60, f"create {names.container}"):
            made = await self._provide_volume(names)
            try:
                return await self._create(plan, asked)
            except BaseException:
                if made:
                    await self._undo(names.volume)
                raise

    async def _provide_volume(self, names: Names) -> bool:
        """Provide a data volume of ours; return whether it was created now."""
        volume = names.volume
        present = await self._volume(volume)
        if present is None:
            labels = self._owner.labels(names, __version__)
            answer = await self.api.call("POST", "/volumes/create", body={"Name": volume, "Labels": labels})
            made = parse(answer.body, Volume)  # of somebody else, should he have been faster
            self._check(f"volume {volume}", made.labels)
            log.info("volume created", engine=self.name, volume=volume)
            return True
        self._check(f"volume {volume}", present.labels)
        return False

    async def _create(self, plan: CreatePlan, asked: str) -> CreatedContainer:
        name = plan.names.container
        labels = self._owner.labels(plan.names, __version__)
        try:
            if self.api.podman and plan.device == "cuda":
                body = plan.podman_body(labels)
                answer = await self.api.call("POST", f"{LIBPOD}/containers/create", body=body, versioned=False)
            else:
                body = plan.body(labels)
                answer = await self.api.call("POST", "/containers/create", query={"name": name}, body=body)
        except EngineMissing as error:  # the image, not the container: no 404 of ours
            pull = self.pulls.last(asked)
            message = f"{error.message}; its pull failed: {pull}" if pull else error.message
            raise EngineRefused(error.status, message, f"create on {self.name}") from error
        except EngineRefused as error:
            if await self.inspect(plan.names) is None:
                raise
            raise EngineConflict(409, error.message, f"create on {self.name}") from error  # podman says 500
        made = parse(answer.body, Created)
        log.info("container created", engine=self.name, container=name, image=plan.image)
        return CreatedContainer(made.id, name)

    async def _undo(self, volume: str) -> None:
        """Remove the empty volume of a container that could not be created."""
        try:
            await self.api.call("DELETE", f"/volumes/{volume}", limit=CLEAN_UP)
        except EngineError as error:
            log.warning("volume left behind", engine=self.name, volume=volume, reason=str(error))

    async def start(self, names: Names) -> bool:
        async with self.api.within(30, f"start {names.container}"):
            await self._own(names)
            answer = await self.api.call("POST", f"/containers/{names.container}/start")
        log.info("container started", engine=self.name, container=names.container, already=answer.status == 304)
        return answer.status != 304

    async def stop(self, names: Names) -> bool:
        async with self.api.within(LONGEST_GRACE + STOP_MARGIN, f"stop {names.container}"):
            container = await self._own(names)
            grace = min(container.config.stop_timeout or USUAL_GRACE, LONGEST_GRACE)
            query = {"t": str(grace)} if self.api.podman else None  # it kills at once what was made through its API
            path = f"/containers/{names.container}/stop"
            answer = await self.api.call("POST", path, query=query, limit=grace + STOP_MARGIN)
        log.info("container stopped", engine=self.name, container=names.container, already=answer.status == 304)
        return answer.status != 304

    async def wait_for_start(self, names: Names, pace: Pace = USUAL) -> StartOutcome:
        return await StartWatch(self, names, pace).run()

    async def remove(self, names: Names, *, data: bool) -> None:
        async with self.api.within(30, f"remove {names.container}"):
            container = await self.inspect(names)
            volume = await self._volume(names.volume) if data else None
            if volume is not None:
                self._check(f"volume {names.volume}", volume.labels)
            if container is not None:
                await self._remove_container(names, running=container.state.running)
            if volume is not None:
                with suppress(EngineMissing):
                    await self.api.call("DELETE", f"/volumes/{names.volume}")
                    log.info("volume removed", engine=self.name, volume=names.volume)

    async def _remove_container(self, names: Names, *, running: bool) -> None:
        """Remove it and wait until its name is free, because a create follows."""
        path = f"/containers/{names.container}"
        if running:
            with suppress(EngineRefused):  # a chance to end in order; what follows ends it anyway
                await self.api.call("POST", f"{path}/stop", query={"t": str(STOP_GRACE)})
        with suppress(EngineMissing, EngineConflict):  # gone, or on its way
            await self.api.call("DELETE", path, query={"force": "true"})
        for delay in delays():
            if await self._inspect(names) is None:
                break
            await asyncio.sleep(delay)
        log.info("container removed", engine=self.name, container=names.container)

    async def image_remove(self, reference: str) -> DeletedImage:
        path = f"/images/{quote(self._registries.mirrored(reference), safe='')}"
        async with self.api.within(30, f"remove the image {reference}"):
            try:
                size = parse((await self.api.call("GET", f"{path}/json")).body, Image).size
                removed = parse((await self.api.call("DELETE", path)).body, list[dict[str, str]])
            except EngineMissing:
                return DeletedImage(deleted=True, bytes_freed=0, reason="not_found")
            except EngineConflict as error:
                log.info("image still in use", engine=self.name, image=reference, reason=error.message)
                return DeletedImage(deleted=False, reason="in_use")
        log.info("image removed", engine=self.name, image=reference)
        return DeletedImage(deleted=True, bytes_freed=size if any("Deleted" in entry for entry in removed) else 0)

    async def install_certificates(self, names: Names, bundle: str, *, tunnel: bool) -> None:
        async with self.api.within(120, f"install certificates in {names.container}"):
            await self._own(names)
            extra = await self._tunnel_files() if tunnel else []
            await provide(self.files, names.container, bundle, extra)

    async def renew_tunnel_files(self) -> int:
        """Replace the tunnel's files in all our containers that have them; return their number."""
        files = await self._tunnel_files()
        renewed = 0
        for container in await self.own_containers() if files else []:
            if await self.files.present(container, TUNNEL_DIRECTORY):
                await self.files.write(container, [], files)
                renewed += 1
        return renewed

    # Parts of verbs

    async def _tunnel_files(self) -> list[File]:
        return [] if self._frp_directory is None else await asyncio.to_thread(tunnel_files, self._frp_directory)

    async def inspect(self, names: Names) -> Container | None:
        """Return the container as it is, None without one. Raises ForeignOwner when it is not ours."""
        container = await self._inspect(names)
        if container is not None:
            self._check(f"container {names.container}", container.config.labels)
        return container

    async def _inspect(self, names: Names) -> Container | None:
        try:
            answer = await self.api.call("GET", f"/containers/{names.container}/json", limit=self.inspect_limit)
        except EngineMissing:
            return None
        return replace(parse(answer.body, Container), clock=clock_of(answer.headers.get("date", "")))

    async def _own(self, names: Names) -> Container:
        container = await self.inspect(names)
        if container is None:
            raise EngineMissing(404, f"No such container: {names.container}", self.name)
        return container

    async def _volume(self, name: str) -> Volume | None:
        try:
            return parse((await self.api.call("GET", f"/volumes/{name}")).body, Volume)
        except EngineMissing:
            return None

    def _check(self, what: str, labels: Mapping[str, str] | None) -> None:
        objection = self._owner.objection(what, labels)
        if objection:
            raise ForeignOwner(objection)

    async def own_containers(self) -> list[str]:
        """Return the ids of all containers, running or not, that carry our label."""
        filters = msgspec.json.encode({"label": [f"{OWNER_LABEL}={self._owner.instance}"]}).decode()
        query = {"all": "true", "filters": filters}
        answer = await self.api.call("GET", "/containers/json", query=query, largest=LARGEST_LIST)
        return [entry.id for entry in await asyncio.to_thread(parse, answer.body, list[Listed])]

    async def last_words(self, container: str) -> list[str]:
        """Return the last lines that a container has written, oldest first; [] if they cannot be read."""
        query = {"stdout": "true", "stderr": "true", "tail": str(LAST_LINES)}
        try:
            path = f"/containers/{container}/logs"
            answer = await self.api.call("GET", path, query=query, limit=10, largest=LARGEST_LOG)
        except EngineError as error:
            log.info("container log unavailable", engine=self.name, container=container, reason=str(error))
            return []
        return await asyncio.to_thread(log_lines, answer.body, LAST_LINES)

    async def check_health(self, container: str) -> None:
        """Have podman run a container's health check: it needs systemd to do so by itself, which may be missing."""
        if self.api.podman:
            with suppress(EngineError):
                await self.api.call("GET", f"{LIBPOD}/containers/{container}/healthcheck", versioned=False, limit=10)
