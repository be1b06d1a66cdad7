"""The FRP server: logins and work connections of tunnel clients (F 5.1, F 5.5)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hmac import compare_digest

import structlog

from harp.errors import PeerError
from harp.logs import RareWarnings
from harp.net.deadlines import Deadlines
from harp.net.listen import Bind, bound_sockets
from harp.net.turns import Turns
from harp.settings import Settings
from harp.tunnel.server.acceptor import Acceptor, LinkEntrance
from harp.tunnel.server.claims import shown
from harp.tunnel.server.group import OtherMembers, TunnelGroup
from harp.tunnel.server.pending import LOGIN_LIMIT, FirstMessage, PendingConnection
from harp.tunnel.server.tunnel import REASON, Channel, LoggedInClient, Tunnel, TunnelFacts
from harp.wire.frp import WRONG_TOKEN, Login, LoginResp, NewWorkConn, StartWorkConn
from harp.wire.frp_crypto import control_key, control_keys, privilege_key, transcript
from harp.wire.frp_login import NotFrp, Stage
from harp.wire.windows import Budget

FRP_TOKEN = ""  # HaRP clients have none: the shared key travels in `metas`
COMPATIBLE = "0.61.1"  # the frps version that clients see
CLOSE_LIMIT = 2.0  # seconds for clients to take our goodbye

log = structlog.get_logger()

Admit = Callable[[str, str], TunnelGroup | str]
"""(client's address without port, its `metas["token"]` or "") -> where it belongs, or the text of its refusal."""


class TunnelServer:
    """Serves tunnel clients on every FRP address.

    A login belongs to the group of its key. Every connection must use `tls`; if it is None, TLS is optional and proves
    nothing, for clients that use it by default.
    """

    def __init__(
        self,
        settings: Settings,
        groups: Iterable[TunnelGroup],
        deadlines: Deadlines,
        admit: Admit,
        tls: ssl.SSLContext | None,
        *,
        warnings: RareWarnings | None = None,
        turns: Turns | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.deadlines = deadlines
        self.budget = Budget(settings.tunnel.memory)
        self.turns = turns or Turns()
        self.warnings = warnings or RareWarnings(lambda: deadlines.now)
        self.groups = list(groups)
        self._settings = settings
        self._admit = admit
        self._wall = wall
        limit = settings.limits.tunnels
        self._acceptor = Acceptor(self, deadlines, self.warnings, tls, limit=limit, tunnels=self._count)

    async def start(self, bind: Bind = bound_sockets) -> None:
        """Listen. Raises ListenError, with nothing left open."""
        self.listen(bind(self._settings.listen.frp))

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Take the connections of bound sockets as well."""
        self._acceptor.start(sockets)

    def accept_links(self, entrance: LinkEntrance) -> None:
        """Give links of other replicas to `entrance`; clients wait until `admit_clients`."""
        self._acceptor.links = entrance
        self._acceptor.clients_may_come.clear()

    def admit_clients(self) -> None:
        """Let clients log in."""
        self._acceptor.clients_may_come.set()

    def leave(self, sockets: Sequence[socket.socket]) -> None:
        """Take them no longer."""
        self._acceptor.leave(sockets)

    @property
    def bound_ports(self) -> list[int]:
        """The TCP ports that are listened on, in the order of the addresses."""
        return self._acceptor.bound_ports

    @property
    def sockets(self) -> list[socket.socket]:
        """Those that are listened on."""
        return self._acceptor.sockets

    @property
    def pending(self) -> int:
        """Connections that have not logged in."""
        return len(self._acceptor)

    def set_tls(self, tls: ssl.SSLContext) -> None:
        """Use `tls` for connections from now on."""
        self._acceptor.set_tls(tls)

    def facts(self) -> list[TunnelFacts]:
        """Return every live tunnel."""
        return [facts for group in self.groups for facts in group.facts()]

    def stop_accepting(self) -> None:
        """Accept no new connections; tunnels continue, and may end without a warning."""
        for group in self.groups:
            group.news.stopping = True
        self._acceptor.stop()

    async def close(self) -> None:
        """End all tunnels; waits up to CLOSE_LIMIT for the clients to take what was sent."""
        self.stop_accepting()
        await self._acceptor.close()
        await _end([tunnel for group in self.groups for tunnel in group.tunnels.values()], "HaRP stops")

    async def end_group(self, group: TunnelGroup, reason: str) -> None:
        """End the tunnels of a Nextcloud that is no longer served."""
        group.news.stopping = True
        await _end(list(group.tunnels.values()), reason)
        if group.budget is not None:
            self.budget.drop(group.budget)

    # LoginHandler of pending connections

    def left(self, pending: PendingConnection) -> None:
        """As LoginHandler."""
        self._acceptor.left(pending)

    def broken(self, pending: PendingConnection, reason: str) -> None:
        """As LoginHandler."""
        self.warnings.warning("tunnel connection closed", reason, pending.address)

    def late(self, pending: PendingConnection) -> None:
        """As LoginHandler."""
        reason = f"no login within {LOGIN_LIMIT:g} s"
        log.info("tunnel connection dropped", address=pending.address, reason=reason, connection=repr(pending))
        pending.drop()

    def unreadable(self, pending: PendingConnection, error: PeerError) -> None:
        """As LoginHandler. A stranger on this port is worth a line for those who look for it; a client is a warning."""
        fix = error.fix if isinstance(error, NotFrp) else "is it a tunnel client of another version?"
        reason = shown(str(error), REASON)
        if not fix and pending.stage is Stage.FIRST_BYTE:
            log.info("tunnel connection dropped", address=pending.address, reason=reason)
        else:
            fix = fix or "set transport.protocol and transport.tls as HaRP's documentation has them"
            self.warnings.warning("tunnel connection refused", reason, pending.address, fix=fix)

    def login(self, first: FirstMessage, login: Login) -> None:
        """As LoginHandler."""
        pending = first.pending
        if pending.tunnel is not None:  # this connection has its control connection already
            first.refuse()
            return
        group = self._group_of(pending.address, first, login)
        if isinstance(group, str):
            refusal = group
            reason = "metadatas.token is not the shared key" if refusal == WRONG_TOKEN else refusal
            self.warnings.warning("tunnel refused", reason, pending.address, client=shown(login.version))
            first.send(LoginResp(COMPATIBLE, error=refusal))
            first.refuse()
            return
        run_id = login.run_id if group.knows(login.run_id) else os.urandom(8).hex()
        predecessor = group.tunnels.get(run_id)
        if predecessor is not None:
            predecessor.close("the client has connected again", abort=True)
        self._welcome(group, first, login, run_id)

    def work(self, first: FirstMessage, message: NewWorkConn) -> None:
        """As LoginHandler. In a yamux session only its own client may bring work connections."""
        pending = first.pending
        if first.messages.rest():  # a client has nothing to say before StartWorkConn
            first.refuse()
            return
        tunnel = pending.tunnel if pending.mux is not None else self._find(message.run_id)
        if tunnel is None and pending.mux is None and (others := self._others_of(message.run_id)) is not None:
            first.accept()
            pending.handed_over()
            others.hand_over(message.run_id, first.transport, first.messages.version)
            return
        if tunnel is None or tunnel.closed or tunnel.run_id != message.run_id or tunnel.mux is not pending.mux:
            first.send(StartWorkConn(error="no client control found for this run id"))
            first.refuse()
            return
        first.accept()
        if pending.mux is None:
            pending.handed_over()
        tunnel.add_work(first.transport, first.messages.version)

    def _count(self) -> int:
        return sum([group.count for group in self.groups])

    def _find(self, run_id: str) -> Tunnel | None:
        """Find the tunnel of a client without yamux, whose work connections prove only that they know its run id."""
        return next((group.tunnels[run_id] for group in self.groups if run_id in group.tunnels), None)

    def _others_of(self, run_id: str) -> OtherMembers | None:
        """Return who knows another member that serves this client."""
        known = (group.others for group in self.groups if group.others is not None)
        return next((others for others in known if others.serve(run_id)), None)

    def _group_of(self, address: str, first: FirstMessage, login: Login) -> TunnelGroup | str:
        """Return where the client belongs, or why it is refused."""
        group = self._admit(address, login.metas.get("token", ""))
        if isinstance(group, str):
            return group
        if not compare_digest(login.privilege_key.encode(), privilege_key(FRP_TOKEN, login.timestamp).encode()):
            return "token in login doesn't match token from configuration"
        if first.messages.version == 2 and first.messages.hellos is None:
            return "missing v2 crypto negotiation"
        return group.objection(login.run_id) or group

    def _welcome(self, group: TunnelGroup, first: FirstMessage, login: Login, run_id: str) -> None:
        pending = first.pending
        first.send(LoginResp(COMPATIBLE, run_id))
        client = LoggedInClient(login, run_id, pending.address, self._wall())
        tunnel = Tunnel(group, client, _channel(first), pending.mux)
        group.began(tunnel)
        first.transport.set_protocol(tunnel)
        first.accept()
        pending.logged_in(tunnel)
        if pending.mux is not None:
            if group.limit and group.budget is None:  # one of several Nextclouds: half of the memory for windows
                group.budget = self.budget.part(self._settings.tunnel.memory // 2)
            streams, window = self._settings.limits.tunnel_streams, self._settings.tunnel.window
            pending.mux.welcome(streams, window, group.budget)
        wire = first.messages.version
        group.log.info("tunnel connected", address=pending.address, client=shown(login.version), wire=wire)
        tunnel.begin(first.messages.rest())


async def _end(tunnels: list[Tunnel], reason: str) -> None:
    """End tunnels; waits up to CLOSE_LIMIT for their clients to take what was sent."""
    for tunnel in tunnels:
        tunnel.close(reason)
    sessions = [tunnel.mux for tunnel in tunnels if tunnel.mux is not None]
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_LIMIT):
            for session in sessions:
                await session.wait_closed()
    for session in sessions:
        session.abort(reason)


def _channel(first: FirstMessage) -> Channel:
    from harp.wire import frp_ciphers as ciphers  # noqa: PLC0415 - loaded for the first client

    hellos = first.messages.hellos
    if hellos is None:
        key = control_key(FRP_TOKEN)
        encryptor = ciphers.CfbEncryptor(key, os.urandom(ciphers.IV_SIZE))
        return Channel(first.transport, 1, encryptor, ciphers.CfbDecryptor(key))
    from_client, to_client = control_keys(FRP_TOKEN, transcript(*hellos))
    records = ciphers.GcmEncryptor(to_client, os.urandom(ciphers.NONCE_SIZE))
    return Channel(first.transport, 2, records, ciphers.GcmDecryptor(from_client))
