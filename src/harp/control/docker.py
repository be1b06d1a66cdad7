"""/docker/exapp/...: AppAPI deploys, provisions, starts, updates and removes ExApps on Docker engines (A 4.6, A 10).

Every endpoint is one verb of an engine. AppAPI looks only at statuses and JSON; texts are for people, who see the first
120 characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Literal, Protocol, TypeVar

import msgspec
import structlog
from aiohttp import web
from msgspec import Struct

from harp.control.failures import InvalidPayload
from harp.control.payloads import decode
from harp.engines.verbs import ContainerEngine
from harp.policy.container import (
    DEFAULT_NETWORK,
    CreatePlan,
    Mount,
    Names,
    Refused,
    ResourceLimits,
    image_reference,
    look_from,
    mounts_refusal,
)
from harp.settings import Settings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

T = TypeVar("T")

PORT_HEADER = "docker-engine-port"
MOST_LINKS = 8  # that the source of a bind mount may lead over


class Fleet(Protocol):
    """The engines: `engines.inventory.EngineInventory`."""

    async def engine(self, port: int, patience: float = ...) -> ContainerEngine:
        """Return the engine of a port that is allowed. Raises EngineError, after `patience` seconds at the latest."""
        ...

    def name(self, port: int) -> str:
        """Return what the engine is called in messages."""
        ...

    def doubt(self, port: int) -> None:
        """Ask the engine again what it is before the next call."""
        ...


class NamesBody(Struct, frozen=True):
    """Which ExApp."""

    name: str
    instance_id: str = ""
    role_suffix: str = ""

    def names(self) -> Names:
        """Return the names, fit for an engine. Raises InvalidPayload."""
        return checked(Names(self.name, self.instance_id, self.role_suffix).checked)


class LimitsBody(Struct, frozen=True, rename={"nano_cpus": "nanoCPUs"}):
    """Resources of a container."""

    memory: float | None = None
    nano_cpus: float | None = None


class MountBody(Struct, frozen=True):
    """A directory of the host."""

    source: str
    target: str
    mode: str = "rw"


class CreateBody(NamesBody, frozen=True):
    """A container to make. AppAPI says `image_id` or `image`."""

    image_id: str = ""
    image: str = ""
    network_mode: str = DEFAULT_NETWORK
    environment_variables: list[str] = []
    restart_policy: str = "unless-stopped"
    compute_device: Literal["cpu", "cuda", "rocm"] = "cpu"
    mount_points: list[MountBody] = []
    resource_limits: LimitsBody | list[msgspec.Raw] = LimitsBody()  # PHP writes an empty object as []

    def plan(self) -> CreatePlan:
        """Return the plan, checked and normalised. Raises InvalidPayload."""
        limits = self.resource_limits
        if isinstance(limits, list):
            if limits:
                raise InvalidPayload("Payload validation error: resource_limits: Expected object, got array")
            limits = LimitsBody()
        plan = CreatePlan(
            self.names(),
            self.image_id or self.image,
            self.network_mode,
            tuple(self.environment_variables),
            self.restart_policy,
            self.compute_device,
            tuple(Mount(mount.source, mount.target, mount.mode) for mount in self.mount_points),
            ResourceLimits(limits.memory, limits.nano_cpus),
        )
        return checked(plan.checked)

    def __repr__(self) -> str:  # the environment holds secrets
        return f"CreateBody({self.name!r})"


class RemoveBody(NamesBody, frozen=True):
    """A container to remove."""

    remove_data: bool = False


class CertificatesBody(NamesBody, frozen=True):
    """The certificates that a container is to trust."""

    system_certs_bundle: str | None = None  # PEM
    install_frp_certs: bool = True


class ImageBody(Struct, frozen=True):
    """An image."""

    image_ref: str


B = TypeVar("B", bound=Struct)


def register(app: web.Application, engines: Fleet, settings: Settings) -> None:
    """Add the endpoints to the control API."""
    docker = Docker(engines, settings)
    for verb in (
        docker.exists,
        docker.create,
        docker.start,
        docker.stop,
        docker.wait_for_start,
        docker.remove,
        docker.image_remove,
        docker.install_certificates,
    ):
        app.router.add_post(f"/docker/exapp/{verb.__name__}", verb)


class Docker:
    """The endpoints. Faulty requests are refused before any engine is called."""

    def __init__(self, engines: Fleet, settings: Settings) -> None:
        self._engines = engines
        self._settings = settings

    async def exists(self, request: web.Request) -> web.Response:
        """Say whether there is a container, and of which image (A 4.6.1)."""
        port, body = await self._read(request, NamesBody)
        names = body.names()
        image = await (await self._engines.engine(port)).exists(names)
        return _json({"exists": False} if image is None else {"exists": True, "image_ref": image})

    async def create(self, request: web.Request) -> web.Response:
        """Create volume and container (A 4.6.2)."""
        port, body = await self._read(request, CreateBody)
        plan = body.plan()
        refusal, warnings = mounts_refusal(plan.mounts, self._settings.engines)
        if refusal:
            raise InvalidPayload(refusal)
        for warning in warnings:
            log.warning(
                "risky bind mount allowed",
                app=plan.names.name,
                note=warning,
                fix="HP_EXAPP_BIND_MOUNTS_ENFORCE_ALL=true",
            )
        if self._settings.engines.keys == "derived":
            plan = plan.with_own_key(self._settings.shared_key)
        engine = await self._engines.engine(port)
        for mount in plan.mounts:
            await self._follow(engine, plan.image, mount)
        return _json(await engine.create(plan), status=201)

    async def _follow(self, engine: ContainerEngine, image: str, mount: Mount) -> None:
        """Follow the links of a bind mount's source. Raises InvalidPayload if they lead to a refused place."""
        engines = self._settings.engines
        source = mount.source
        for _ in range(MOST_LINKS):
            root = look_from(source, engines)
            led = None if root == source else await engine.first_link(image, root, source)
            if led is None:
                return
            source = led
            refusal, _warnings = mounts_refusal([Mount(source, mount.target, mount.mode)], engines)
            if refusal:
                raise InvalidPayload(f"{mount.source} leads to {source} on the engine's host: {refusal}")
        raise InvalidPayload(f"{mount.source} is a chain of more than {MOST_LINKS} links on the engine's host")

    async def start(self, request: web.Request) -> web.Response:
        """Start the container. 204; 200 if it was running already, which a deploy does not accept (A 4.6.3)."""
        port, body = await self._read(request, NamesBody)
        names = body.names()
        changed = await (await self._engines.engine(port)).start(names)
        return _done() if changed else web.Response(text="Container already started")

    async def stop(self, request: web.Request) -> web.Response:
        """Stop the container (A 4.6.4)."""
        port, body = await self._read(request, NamesBody)
        names = body.names()
        changed = await (await self._engines.engine(port)).stop(names)
        return _done() if changed else web.Response(text="Container already stopped")

    async def wait_for_start(self, request: web.Request) -> web.Response:
        """Wait until the container runs and is healthy; a failure is reported with status 200 (A 4.6.5)."""
        port, body = await self._read(request, NamesBody)
        names = body.names()
        return _json(await (await self._engines.engine(port)).wait_for_start(names))

    async def remove(self, request: web.Request) -> web.Response:
        """Remove the container and, if asked to, the data (A 4.6.6)."""
        port, body = await self._read(request, RemoveBody)
        names = body.names()
        await (await self._engines.engine(port)).remove(names, data=body.remove_data)
        return _done()

    async def image_remove(self, request: web.Request) -> web.Response:
        """Remove an image, unless something uses it (A 4.6.7)."""
        port, body = await self._read(request, ImageBody)
        reference = checked(lambda: image_reference(body.image_ref))
        return _json(await (await self._engines.engine(port)).image_remove(reference))

    async def install_certificates(self, request: web.Request) -> web.Response:
        """Put CAs and the tunnel's client files into the container, running or not (A 4.6.8)."""
        port, body = await self._read(request, CertificatesBody)
        names = body.names()
        engine = await self._engines.engine(port)
        await engine.install_certificates(names, body.system_certs_bundle or "", tunnel=body.install_frp_certs)
        return _done()

    async def _read(self, request: web.Request, shape: type[B]) -> tuple[int, B]:
        """Return the engine's port and the body. Raises InvalidPayload."""
        port = engine_port(request.headers.get(PORT_HEADER, ""), self._settings.engines.ports)
        return port, decode(await request.read(), shape)


def engine_port(text: str, allowed: Collection[int]) -> int:
    """Return the port in a docker-engine-port header. Raises InvalidPayload."""
    if not text:
        raise InvalidPayload(f"Missing '{PORT_HEADER}' header.")
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise InvalidPayload(f"Invalid '{PORT_HEADER}' header value: {text[:32]}")
    port = int(text)
    if port not in allowed:
        raise InvalidPayload(f"{PORT_HEADER} {port} is not in HP_DOCKER_ENGINE_PORTS ({shown_ports(allowed)})")
    return port


def shown_ports(ports: Collection[int]) -> str:
    """Return ports as an admin writes them: "24000-24010,24020"."""
    ranges: list[list[int]] = []
    for port in sorted(ports):
        if ranges and ranges[-1][1] == port - 1:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)


def checked(check: Callable[[], T]) -> T:
    """Return what `check` returns. Raises InvalidPayload when it refuses."""
    try:
        return check()
    except Refused as refused:
        raise InvalidPayload(f"Payload validation error: {refused}") from None


def _json(value: object, status: int = 200) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(status=status, body=body, content_type="application/json", charset="utf-8")


def _done() -> web.Response:
    return web.Response(status=204)
