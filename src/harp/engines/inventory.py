"""The engines by their ports: where each is, what it is, when it was last seen.

The hot path asks `api` and gets an answer at once; engines are asked in tasks, one per engine at a time. The
Docker client is loaded when the first engine is needed.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from harp.engines.errors import EngineError, EngineTimeout, EngineUnreachable
from harp.engines.facts import EngineFacts, EngineStatus
from harp.errors import SettingsError, words_of
from harp.lazy import load_module
from harp.net.ports import PortTable
from harp.net.targets import EngineTunnel, Target, Tcp, Tls, Unix
from harp.net.tasks import Tasks
from harp.policy.container import owner_from
from harp.policy.docker_api import ApiRange
from harp.policy.ports import LOCAL_ENGINE_PORT
from harp.policy.registries import NONE, Registries, registries_from
from harp.settings import Engines, Settings

if TYPE_CHECKING:
    from harp.engines.connector import DialFunction
    from harp.engines.docker import DockerEngine

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

REFRESH = 300.0  # seconds between questions to an engine in use
ASK = 15.0  # seconds for an engine to say what it is
CONNECT = 10.0  # seconds for one connection


class _KnownEngine(Struct, eq=False):
    """One engine and what is known of it."""

    engine: DockerEngine
    asked: float = 0.0  # on the loop's clock
    last_seen: float | None = None
    trouble: str = ""
    renewals: int = 0  # of the tunnel's certificates, that its containers have got
    asking: asyncio.Task[EngineFacts] | None = None


def local_engine(settings: Engines) -> Target:
    """Return the engine of this host. Raises SettingsError when its certificates cannot be used."""
    host = settings.host
    if host.path:
        return Unix(host.path)
    if settings.certificates is None:
        return Tcp(host.host, host.port)
    directory = settings.certificates
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(directory / "ca.pem")
        context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    except OSError as error:  # ssl.SSLError is one
        problem = f"HP_DOCKER_CERT_PATH: {directory} needs ca.pem, cert.pem and key.pem: {words_of(error)}"
        raise SettingsError([problem]) from error
    return Tls(host.host, host.port, context)


def registries_of(settings: Engines) -> Registries:
    """Return what HP_REGISTRIES_FILE says. Raises SettingsError when it cannot be used."""
    path = settings.registries
    if path is None:
        return NONE
    try:
        return registries_from(path.read_bytes())
    except OSError as error:
        raise SettingsError([f"HP_REGISTRIES_FILE: {path} cannot be read: {words_of(error)}"]) from error
    except ValueError as error:
        raise SettingsError([f"HP_REGISTRIES_FILE: {path}: {error}"]) from None


class EngineInventory:
    """All engines that were ever asked for; a port is checked before it is used here."""

    def __init__(self, settings: Settings, dialer: DialFunction, ports: PortTable, now: Callable[[], float]) -> None:
        self.ports = settings.engines.ports
        self.owner = owner_from(settings.nextcloud.url, settings.engines.instance)
        self.registries = registries_of(settings.engines)
        self._local = local_engine(settings.engines)
        self._tunnel_files = settings.certs / "frp" if settings.tunnel.tls else None
        self._dialer = dialer
        self._table = ports
        self._now = now
        self._entries: dict[int, _KnownEngine] = {}
        self._renewals = 0  # of the tunnel's certificates, since we run
        self._tasks = Tasks()

    def target(self, port: int) -> Target:
        """Return where the engine of `port` is."""
        return self._local if port == LOCAL_ENGINE_PORT else EngineTunnel(port)

    def name(self, port: int) -> str:
        """Return the engine in messages."""
        return f"the engine of port {port}"

    def api(self, port: int) -> ApiRange | None:
        """Return the API versions that an engine takes, None when that has to be learned first."""
        entry = self._entries.get(port)
        if entry is None or entry.engine.facts is None:
            return None
        if self._away(port):  # learning it again fails quickly, with a reason
            self.doubt(port)
            return None
        if self._now() - entry.asked >= REFRESH:
            self._ask(port, entry)
        return entry.engine.facts.api

    async def engine(self, port: int, patience: float = ASK) -> DockerEngine:
        """Return the engine, ready for calls. Raises EngineError if that takes longer than `patience` seconds."""
        if self.api(port) is None:
            await self._known(port, patience)
        return self._entries[port].engine

    def doubt(self, port: int) -> None:
        """A request to this engine has failed: it may be a different one when it is back."""
        entry = self._entries.get(port)
        if entry is not None and entry.asking is None:
            entry.engine.forget()

    def statuses(self) -> list[EngineStatus]:
        """Return every engine that was used, by port."""
        return [
            EngineStatus(port, self.name(port), entry.engine.facts, entry.last_seen, entry.trouble)
            for port, entry in sorted(self._entries.items())
        ]

    async def close(self) -> None:
        """Stop asking and drop all connections."""
        await self._tasks.close()
        for entry in self._entries.values():
            if entry.asking is not None:
                entry.asking.cancel()
                await asyncio.gather(entry.asking, return_exceptions=True)
            await entry.engine.close()
        self._entries.clear()

    async def renew_tunnel_files(self) -> None:
        """Give all our containers the renewed certificates of the tunnel.

        Unreachable engines get them when they are next used.
        """
        self._renewals += 1
        for port in {LOCAL_ENGINE_PORT, *(port for port, _ in self._table.items())} & self.ports:
            self.doubt(port)
            try:
                await self.engine(port)
            except EngineError as error:
                log.info("tunnel certificates not renewed in ExApps", engine=port, reason=str(error))

    async def _renew(self, port: int, entry: _KnownEngine) -> None:
        wanted = self._renewals
        try:
            renewed = await entry.engine.renew_tunnel_files()
        except EngineError as error:
            log.warning("tunnel certificates not renewed in ExApps", engine=port, reason=str(error))
        else:
            entry.renewals = wanted
            log.info("tunnel certificates renewed in ExApps", engine=port, containers=renewed)

    # Asking

    async def _known(self, port: int, patience: float) -> EngineFacts:
        entry = self._entries.get(port)
        if entry is None:
            module = await load_module("harp.engines.docker")
            entry = self._entries.get(port)
            if entry is None:
                engine = module.DockerEngine(
                    self.name(port),
                    self.target(port),
                    self._dialer,
                    self.owner,
                    self._tunnel_files,
                    self.registries,
                    connect=CONNECT,
                )
                entry = self._entries[port] = _KnownEngine(engine)
        if entry.engine.facts is not None:  # learned while the client was loaded
            return entry.engine.facts
        asking = self._ask(port, entry)
        await asyncio.wait((asking,), timeout=patience)
        if asking.done():
            return asking.result()
        if port != LOCAL_ENGINE_PORT and self._table.get(port) is None:
            raise EngineUnreachable(f"{self.name(port)} cannot be reached: no tunnel is connected for port {port}")
        raise EngineTimeout(f"{self.name(port)} did not answer within {patience:g} s")

    def _away(self, port: int) -> bool:
        """Return whether there was a tunnel for the engine, and there is none now."""
        return port != LOCAL_ENGINE_PORT and self._table.seen(port) and self._table.get(port) is None

    def _ask(self, port: int, entry: _KnownEngine) -> asyncio.Task[EngineFacts]:
        """Return the pending question, or a new one."""
        if entry.asking is None:
            entry.asking = self._tasks.start(self._learn(port, entry), awaited=True)
        return entry.asking

    async def _learn(self, port: int, entry: _KnownEngine) -> EngineFacts:
        entry.asked = self._now()
        try:
            facts = await entry.engine.ask(ASK)
        except EngineError as error:
            entry.trouble = str(error)
            raise
        finally:
            entry.asking = None
        if entry.last_seen is None or entry.trouble:
            log.info("engine probed", port=port, version=facts.version, api=str(facts.api), podman=facts.podman)
        entry.trouble, entry.last_seen = "", time.time()
        if entry.renewals != self._renewals:
            self._tasks.start(self._renew(port, entry))
        return facts
