"""Where HaRP serves several Nextclouds: finds the gate of every request, and keeps one from slowing the others.

The choice is made once for each block of header lines that clients repeat, and remembered with it. Everything after it
is the gate's, and no gate knows of another: caches, bans and counts need no instance in their keys.

Fairness has two sides. In one turn of the loop at most A_TURN requests of an instance are begun; more stand in its
line, so that whoever floods one instance waits behind himself. And an instance has shares of connections and of
requests under way, so that it cannot use up what all need.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

from harp.frontend.books import Books
from harp.frontend.exchange import Exchange
from harp.frontend.gate import FORGET, LEARNING, Gate
from harp.frontend.open_connections import OpenConnections
from harp.logs import INSTANCE, RareWarnings
from harp.net.deadlines import Deadlines
from harp.net.turns import Turns
from harp.policy.bans import Denial, Offence
from harp.policy.client_address import ClientAddresses
from harp.policy.instances import InstanceNames
from harp.policy.verdict import Refuse
from harp.recent import remember
from harp.settings import Settings
from harp.wire.ends import How
from harp.wire.requests import KNOWN, RequestFields, RequestHead, RequestReader

if TYPE_CHECKING:
    from harp.frontend.connection import ClientConnection
    from harp.nextcloud.banning import Banning

A_TURN = 16  # requests of one instance that are begun in one turn of the loop
NEIGHBOURS = 16384  # peers that are remembered
RETRY_AFTER = 1  # seconds, for those beyond a limit
UPGRADED = 101


class Desk:
    """One instance at the reception."""

    __slots__ = ("begun", "connections", "gate", "left", "line", "most_connections", "most_requests", "name", "running")

    def __init__(self, settings: Settings, gate: Gate, capacity: int, instances: int) -> None:
        half = max(capacity // 2, 1) if instances > 1 else capacity
        self.name = settings.instance
        self.gate = gate
        self.most_connections = settings.shares.connections or half
        self.most_requests = settings.shares.requests or half
        self.connections = 0  # whose last request was for this instance
        self.begun = 0  # requests in this turn of the loop
        self.running: set[Exchange] = set()
        self.line: deque[tuple[ClientConnection, Exchange]] = deque()
        self.left = 0  # who have left the line since it was looked through, at most

    @property
    def has_room(self) -> bool:
        """May one more request be under way? What was upgraded counts as a connection alone."""
        if len(self.running) >= self.most_requests:
            self.running = {exchange for exchange in self.running if exchange.status != UPGRADED}
        return len(self.running) < self.most_requests

    def note_leaving(self) -> None:
        """Somebody may have left the line: when that is half of it, let those who wait move up."""
        self.left += 1
        if 2 * self.left >= len(self.line):
            self.line = deque(
                (connection, exchange) for connection, exchange in self.line if connection.waits(exchange)
            )
            self.left = 0


class Reception(OpenConnections):
    """The decider of the listeners. `strangers` are banned for keys that are those of no instance."""

    def __init__(
        self,
        settings: Settings,
        deadlines: Deadlines,
        turns: Turns,
        books: Books,
        strangers: Banning,
        warnings: RareWarnings,
    ) -> None:
        super().__init__(settings.limits)
        self.deadlines = deadlines
        self.turns = turns
        self.timeouts = settings.timeouts
        self.reader = RequestReader(settings.limits.headers, frozenset({settings.proxies.header.encode()}))
        self.patience = 2 * settings.nextcloud.timeout + LEARNING
        self.inspected = False
        self.deadline = deadlines.now + FORGET
        self.is_neighbour = self._is_neighbour
        self._names = InstanceNames((), b"")
        self._desks: dict[str, Desk] = {}
        self._known: dict[tuple[RequestFields, str], str | Denial] = {}
        self._neighbours: dict[str, bool] = {}
        self._at: dict[ClientConnection, Desk] = {}
        self._addresses = ClientAddresses(settings.proxies)
        self._books = books
        self._strangers = strangers
        self._warnings = warnings
        self._seal = os.urandom(32)
        self._loop = asyncio.get_running_loop()
        self._busy: dict[Desk, None] = {}  # that have begun requests in this turn, or have a line
        self._scheduled = False
        self._ids = count(1)
        self._id_prefix = os.urandom(4).hex().encode()
        deadlines.watch(self)

    # Instances

    def open(self, gates: Mapping[str, tuple[Settings, Gate]]) -> None:
        """Serve these instances from now on, by name. Requests of one whose gate has changed or gone are ended."""
        for name, desk in list(self._desks.items()):
            if name not in gates or gates[name][1] is not desk.gate:
                self._dismiss(desk)
                del self._desks[name]
        for name, (settings, gate) in gates.items():
            fresh = Desk(settings, gate, self.capacity, len(gates))
            desk = self._desks.setdefault(name, fresh)
            desk.most_connections, desk.most_requests = fresh.most_connections, fresh.most_requests
        self._names = InstanceNames([settings for settings, _ in gates.values()], self._seal)
        self._known.clear()
        self._neighbours.clear()

    def reload(self, settings: Settings) -> None:
        """Take over the proxies that are trusted where no instance says so, for strangers."""
        self._addresses = ClientAddresses(settings.proxies)

    def load(self, name: str) -> tuple[int, int, int]:
        """Connections, requests under way, and requests that wait, of one instance."""
        desk = self._desks[name]
        return desk.connections, len(desk.running), len(desk.line)

    def _dismiss(self, desk: Desk) -> None:
        """End what runs; an idle connection may be a reverse proxy's, and its next request for another instance."""
        for connection, at in list(self._at.items()):
            if at is desk:
                del self._at[connection]
                if connection.running is not None:
                    connection.end(How.RESET, "this Nextcloud is served here no more")
        desk.line.clear()
        self._busy.pop(desk, None)

    def expired(self) -> None:
        """Timed: forget what requests have said."""
        self.deadline = self.deadlines.now + FORGET
        self.reader.forget()
        self._known.clear()

    def _is_neighbour(self, peer: str) -> bool:
        """Does any instance take this peer's word for its clients?"""
        known = self._neighbours.get(peer)
        if known is None:
            known = any(desk.gate.is_neighbour(peer) for desk in self._desks.values())
            remember(self._neighbours, peer, known, NEIGHBOURS)
        return known

    # Decider

    def closed(self, connection: ClientConnection) -> None:
        super().closed(connection)
        desk = self._at.pop(connection, None)
        if desk is not None:
            desk.connections -= 1

    def begin(self, connection: ClientConnection, head: RequestHead | None, last: Exchange | None) -> Exchange:
        if head is None:
            request_id = b"%b-%x" % (self._id_prefix, next(self._ids))
            return Exchange(None, request_id, connection.peer, trusted=True, peer=connection.peer)
        name = self._choose(head.fields, connection.peer)
        if isinstance(name, Denial):
            return self._stranger(connection, head, name)
        desk = self._desks[name]
        before = self._at.get(connection)
        if before is not desk:
            if before is not None:
                before.connections -= 1
            desk.connections += 1
            self._at[connection] = desk
        return desk.gate.begin(connection, head, last)

    def handle(self, connection: ClientConnection, exchange: Exchange) -> None:
        caller = exchange.caller
        if caller is None:
            assert isinstance(exchange.path, Denial)
            self._turn_away(connection, exchange, exchange.path)
            return
        desk = self._desks[caller.read_by.instance]
        if desk.connections > desk.most_connections:
            reason = f"{desk.most_connections} connections are the share of {desk.name}"
            self._beyond(desk, connection, exchange, reason, "connections")
        elif desk.line or desk.begun >= A_TURN or not desk.has_room:
            if len(desk.line) >= desk.most_connections:
                reason = f"{len(desk.line)} requests to {desk.name} wait already"
                self._beyond(desk, connection, exchange, reason, "requests")
                return
            desk.line.append((connection, exchange))
            self._await_turn(desk)
        else:
            self._begin(desk, connection, exchange)

    def finished(self, exchange: Exchange) -> None:
        caller = exchange.caller
        desk = self._desks.get(caller.read_by.instance) if caller is not None else None
        if desk is None:
            self._books.enter(exchange)
            return
        if desk.line:
            if exchange not in desk.running:
                desk.note_leaving()
            self._await_turn(desk)
        desk.running.discard(exchange)
        self._as_instance(desk, desk.gate.finished, exchange)

    async def close(self) -> None:
        """End every connection now."""
        for connection in list(self.connections):
            connection.end(How.RESET, "HaRP is stopping")
        self.deadlines.drop(self)
        self._books.close()

    # Turns

    def _begin(self, desk: Desk, connection: ClientConnection, exchange: Exchange) -> None:
        desk.begun += 1
        desk.running.add(exchange)
        self._await_turn(desk)
        self._as_instance(desk, desk.gate.handle, connection, exchange)

    def _await_turn(self, desk: Desk) -> None:
        self._busy[desk] = None
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        """Begin what stands in line, so much of each instance; what has no room waits for the end of a request."""
        self._scheduled = False
        busy, self._busy = self._busy, {}
        for desk in busy:
            desk.begun = 0
        for desk in busy:
            while desk.line and desk.begun < A_TURN and desk.has_room:
                connection, exchange = desk.line.popleft()
                if connection.waits(exchange):
                    self._begin(desk, connection, exchange)
            if desk.line and desk.has_room:
                self._await_turn(desk)

    # Parts

    def _choose(self, fields: RequestFields, peer: str) -> str | Denial:
        chosen = self._known.get((fields, peer))
        if chosen is None:
            chosen = self._names.choose(fields.found, lambda name: self._desks[name].gate.is_neighbour(peer))
            if fields.known:
                remember(self._known, (fields, peer), chosen, KNOWN)
        return chosen

    def _stranger(self, connection: ClientConnection, head: RequestHead, denial: Denial) -> Exchange:
        client = self._addresses.find(connection.peer, head.fields.special)
        request_id = b"%b-%x" % (self._id_prefix, next(self._ids))
        return Exchange(
            *(head, request_id, client.address, None, denial, False, monotonic(), connection.peer),
        )

    def _turn_away(self, connection: ClientConnection, exchange: Exchange, denial: Denial) -> None:
        head = exchange.head
        assert head is not None
        client = self._addresses.find(connection.peer, head.fields.special)
        retry_after = None
        if denial.offence is Offence.ATTACK:
            left = self._strangers.list.seconds(client.ban_key)
            if left > 0.0:
                denial, retry_after = Denial(429, "banned for wrong shared keys"), int(left) + 1
            else:
                self._strangers.strike(client.ban_key, denial.reason, client.proxy_key)
        exchange.verdict = Refuse(denial.status, denial.reason, retry_after=retry_after)
        self._warnings.warning("request for no Nextcloud", denial.reason, client.ban_key, status=denial.status)
        connection.refuse(denial.status, denial.reason, retry_after)

    def _beyond(self, desk: Desk, connection: ClientConnection, exchange: Exchange, reason: str, limit: str) -> None:
        exchange.verdict = Refuse(503, reason, retry_after=RETRY_AFTER)
        fix = f"raise limits.{limit} of it in HP_INSTANCES_FILE"
        self._warnings.warning("share used up", reason, "", instance=desk.name, fix=fix)
        connection.refuse(503, reason, RETRY_AFTER)
        if limit == "connections":
            connection.end(How.GRACEFUL)

    def _as_instance(self, desk: Desk, call: Callable[..., None], *arguments: object) -> None:
        """Call, and have every line of the log name the instance, in tasks that begin here as well."""
        token = INSTANCE.set(desk.name)
        try:
            call(*arguments)
        finally:
            INSTANCE.reset(token)
