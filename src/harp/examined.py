"""The running HaRP as `harp doctor` examines it: implements `status.doctor.examined.Examined`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from harp.errors import HarpError, words_of
from harp.logs import RecentWarning
from harp.net.targets import exapp_target
from harp.policy.client_address import may_be_proxy
from harp.policy.exapp import RecordFact
from harp.policy.ports import EXAPP_PORTS
from harp.settings import Settings
from harp.state.engine_names import EngineNames, engines_directory
from harp.status.doctor.inside import Room
from harp.status.snapshot import BanLine, Snapshot

if TYPE_CHECKING:
    from harp.app import Harp
    from harp.tenant import Tenant

LONGEST_LINE = 256  # bytes
HEARTBEAT = b"GET /heartbeat HTTP/1.1\r\nHost: localhost\r\nUser-Agent: harp-doctor\r\nConnection: close\r\n\r\n"


class ExaminedHarp:
    """See `Examined`, which says what each of these is."""

    def __init__(self, harp: Harp, instance: str) -> None:
        """`instance` is the Nextcloud to examine, "" where there is only one."""
        self._harp = harp
        self._instance = instance

    @property
    def _tenant(self) -> Tenant:
        """As it is now: it may have been replaced since the last examination."""
        tenant = self._harp.tenants.find(self._instance)
        if tenant is None:
            raise HarpError(f"{self._instance} is no longer served")
        return tenant

    @property
    def settings(self) -> Settings:
        return self._tenant.settings

    @property
    def room(self) -> Room:
        limits, processes = self.settings.limits, self.settings.processes
        allowed = self._harp.gate.capacity * processes
        return Room(allowed, limits.connections * processes, self._harp.descriptors_wanted)

    @property
    def key_doubted(self) -> str:
        return self._tenant.instance.key_doubted

    def snapshot(self) -> Snapshot:
        return self._harp.facts.snapshot_of(self._tenant.settings.instance)

    def certificate_fixes(self) -> Mapping[str, str]:
        return {one.file: one.fix for one in self._harp.certificates}

    def private_bans(self) -> Sequence[BanLine]:
        name = self._tenant.settings.instance
        return [ban for ban in self._harp.facts.bans() if ban.instance in ("", name) and may_be_proxy(ban.address)]

    def recent_warnings(self, within: float) -> Sequence[RecentWarning]:
        return self._tenant.warnings.recent(within)

    def named_engines(self) -> Mapping[int, str]:
        return EngineNames(engines_directory(self.settings)).all()

    def tunnel_names(self) -> Sequence[str]:
        instance = self._tenant.settings.instance
        tunnels = [tunnel for tunnel in self._harp.facts.tunnels() if tunnel.instance in ("", instance)]
        claims = [claim for tunnel in tunnels for claim in zip(tunnel.names, tunnel.ports, strict=True)]
        return [name.lower() for name, port in claims if port in EXAPP_PORTS]

    async def probe_nextcloud(self) -> str:
        instance = self._tenant.instance
        return "" if await instance.probe() else instance.last_error or "it has not answered"

    async def ask_record(self, app_id: str) -> RecordFact:
        return await self._tenant.instance.asked_anew(app_id)

    async def ask_engine(self, port: int, patience: float) -> tuple[str, Sequence[str]]:
        self._tenant.engines.doubt(port)
        engine = await self._tenant.engines.engine(port, patience)
        facts = engine.facts
        assert facts is not None
        kind = "podman" if facts.podman else "Docker"
        return f"{kind} {facts.version}, API {facts.api}", await engine.gpu_runtimes()

    async def knock(self, app_id: str, host: str, port: int) -> str:
        target = exapp_target(app_id, host, port, self._tenant.instance.rules.targets)
        _, protocol, _ = await self._tenant.dialer.reach(target, _Knock)
        return await cast("_Knock", protocol).answered

    def begin_walk(self) -> str:
        return self._tenant.instance.walks.begin()

    def end_walk(self, nonce: str) -> None:
        self._tenant.instance.walks.end(nonce)


class _Knock(asyncio.Protocol):
    """Asks for the heartbeat, and waits for the first line of the answer; "" when the connection ends without."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answered.add_done_callback(lambda _: self._leave())
        self._transport: asyncio.Transport | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(HEARTBEAT)

    def data_received(self, data: bytes) -> None:
        self._data += data[:LONGEST_LINE]
        if b"\n" in self._data or len(self._data) >= LONGEST_LINE:
            self._answer(self._data.partition(b"\n")[0].decode("latin-1").strip())

    def connection_lost(self, exc: Exception | None) -> None:
        self._answer(words_of(exc) if isinstance(exc, OSError) else "")

    def _answer(self, line: str) -> None:
        if not self.answered.done():
            self.answered.set_result(line)

    def _leave(self) -> None:
        if self._transport is not None:
            self._transport.abort()
