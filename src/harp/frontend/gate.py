"""From a request to its handler: who is it, what may be seen, and where it goes.

`Gate` is the shell around the pure decision: it finds the client's address, fetches the facts that are missing, and
turns the verdict into a hop for the proxy or into an answer. When every fact is known, all of this is one synchronous
call.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from functools import lru_cache
from itertools import count
from time import monotonic
from typing import Protocol

import structlog

from harp.engines.errors import EngineError
from harp.frontend.access import AccessLog, Entry
from harp.frontend.caller import Caller
from harp.frontend.connection import ClientConnection
from harp.frontend.plans import Plan, Plans
from harp.logs import timestamp
from harp.net.deadlines import Deadlines
from harp.net.targets import Inner, Target, exapp_target
from harp.policy.client_address import ClientAddresses
from harp.policy.decide import Call, Known, Rules, decide
from harp.policy.docker_api import ApiRange, Passage, passage
from harp.policy.registries import Registries
from harp.policy.verdict import Control, Engine, Forward, Missing, NeedRecord, NeedVisitor, Refuse, Verdict
from harp.proxy.forward import Forwarding, Hop
from harp.proxy.upstreams import Upstreams
from harp.settings import Settings
from harp.wire.forwarding import control_head, engine_head, request_head
from harp.wire.requests import RequestHead, RequestReader

log = structlog.get_logger()

CONTROL = Inner("control")
TO_CONTROL = Hop(CONTROL, "the control API")
DOUBTFUL = (400, 502, 504)  # answers after which an engine may be another one, with another API
MOST_FACTS = 4  # facts fetched for one request; two are ever needed, a changing cache may ask again


class Knowledge(Known, Protocol):
    """What the gate needs of a Nextcloud: `nextcloud.instance.Instance`."""

    rules: Rules

    @property
    def version(self) -> int:
        """Another one whenever a record has changed or a ban has begun."""

    async def fetch(self, missing: Missing, call: Call) -> None:
        """Put the missing fact on `call`."""

    def strike(self, address: str, reason: str) -> None:
        """Count a strike against a client address."""

    def connection_failed(self, app_id: str) -> None:
        """An ExApp's address did not answer."""


class Fleet(Protocol):
    """What the gate needs of the Docker engines: `engines.inventory.Engines`."""

    registries: Registries

    def target(self, port: int) -> Target:
        """Where the engine of a port is."""

    def name(self, port: int) -> str:
        """The engine in messages."""

    def api(self, port: int) -> ApiRange | None:
        """The API versions that an engine takes, None when that has to be learned first."""

    async def learn(self, port: int) -> ApiRange:
        """The same, learned. Raises EngineError, soon."""

    def doubt(self, port: int) -> None:
        """A request to this engine has failed."""


class Gate:
    """Decides about every request of every listener, and keeps the books about connections."""

    def __init__(
        self,
        settings: Settings,
        instance: Knowledge,
        upstreams: Upstreams,
        engines: Fleet,
        deadlines: Deadlines,
        access_log: AccessLog,
    ) -> None:
        self.deadlines = deadlines
        self.limits = settings.limits
        self.timeouts = settings.timeouts
        self.reader = RequestReader(settings.limits.headers, frozenset({settings.proxies.header.encode()}))
        self.draining = False
        self.connections: set[ClientConnection] = set()
        self._settings = settings
        self._instance = instance
        self._upstreams = upstreams
        self._engines = engines
        self._access_log = access_log
        self._rules = instance.rules
        self._addresses = ClientAddresses(settings.proxies)
        self._plans = Plans(deadlines)
        self._capacity = settings.limits.connections
        self._per_address: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._ids = count(1)
        self._id_prefix = os.urandom(4).hex().encode()
        self._stripped: set[str] = set()

    def reload(self, settings: Settings) -> None:
        """Take over what may change while running: the trusted proxies."""
        self._addresses = ClientAddresses(settings.proxies)

    def limit_connections(self, capacity: int) -> None:
        """Accept at most so many connections: what the file descriptors allow."""
        self._capacity = min(capacity, self._settings.limits.connections)

    # Connections

    def opened(self, connection: ClientConnection) -> str | None:
        self.connections.add(connection)
        if len(self.connections) > self._capacity:
            return f"all {self._capacity} connections are in use"
        peer = connection.peer
        if self._addresses.is_neighbour(peer):
            return None
        used = self._per_address[peer] = self._per_address.get(peer, 0) + 1
        if used > self.limits.connections_per_address:
            return f"{self.limits.connections_per_address} connections from this address are open already"
        return None

    def closed(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        used = self._per_address.get(connection.peer)
        if used is not None:
            if used > 1:
                self._per_address[connection.peer] = used - 1
            else:
                del self._per_address[connection.peer]

    # Requests

    def handle(self, connection: ClientConnection, head: RequestHead) -> None:
        try:
            if self._access_log.enabled:
                connection.started = monotonic()
            caller = head.fields.derived
            if not isinstance(caller, Caller) or caller.addresses is not self._addresses:
                caller = self._recognise(connection, head)
            elif not caller.name:
                caller.name_it()
            connection.request_id = caller.request_id or b"%b-%x" % (self._id_prefix, next(self._ids))
            plan = self._plans.find(self._instance.version, caller.name, head.path)
            if plan is None:
                self._decide(connection, head, caller)
            else:
                self._follow(connection, head, caller, plan)
        except Exception:
            log.exception("request failed")
            if connection.waits(head):
                connection.refuse(500, "HaRP failed at this request; its log says why")

    def _recognise(self, connection: ClientConnection, head: RequestHead) -> Caller:
        caller = Caller(head.fields.special, connection.peer, connection.secure, self._addresses)
        head.fields.derived = caller
        connection.address = caller.address
        connection.ban_key = caller.ban_key
        return caller

    def _decide(self, connection: ClientConnection, head: RequestHead, caller: Caller) -> None:
        call = Call(head.path, caller.ban_key, caller.credentials)
        answer = decide(call, self._instance, self._rules)
        if isinstance(answer, (NeedRecord, NeedVisitor)):
            self._spawn(self._learn(connection, head, caller, call, answer))
        elif isinstance(answer, Forward) and not answer.strike and caller.name:
            plan = self._plan(answer)
            self._plans.keep(caller.name, head.path, plan)
            self._follow(connection, head, caller, plan)
        else:
            self._act(connection, head, caller, answer)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _learn(
        self, connection: ClientConnection, head: RequestHead, caller: Caller, call: Call, missing: Missing
    ) -> None:
        """Fetch what the decision needs, then decide."""
        answer: Verdict | Missing = missing
        try:
            for _ in range(MOST_FACTS):
                if not isinstance(answer, (NeedRecord, NeedVisitor)):
                    break
                await self._instance.fetch(answer, call)
                answer = decide(call, self._instance, self._rules)
        except Exception:
            log.exception("decision failed")
            answer = Refuse(500, "HaRP failed to decide about this request; its log says why")
        if isinstance(answer, (NeedRecord, NeedVisitor)):
            answer = Refuse(503, "no decision was reached", retry_after=1)
        if connection.waits(head):
            self._act(connection, head, caller, answer)

    def _act(self, connection: ClientConnection, head: RequestHead, caller: Caller, verdict: Verdict) -> None:
        connection.verdict = verdict
        match verdict:
            case Forward():
                if verdict.strike:
                    self._instance.strike(caller.ban_key, verdict.reason)
                self._follow(connection, head, caller, self._plan(verdict))
            case Control():
                onward = control_head(head, verdict.target, caller.address.encode(), connection.request_id)
                self._forward(connection, head, TO_CONTROL, onward)
            case Engine():
                self._pass_through(connection, head, verdict)
            case Refuse():
                self._refuse(connection, caller, verdict)

    def _plan(self, verdict: Forward) -> Plan:
        if verdict.stripped:
            self._tell_stripped(verdict)
        location_prefix = verdict.prefix if self._settings.rewrite_location else b""
        app = verdict.record
        target = exapp_target(app.app_id, app.host, app.port, self._rules.targets)
        hop = Hop(target, f"ExApp {verdict.app_id}", location_prefix)
        return Plan(verdict, hop, _identity(verdict))

    def _follow(self, connection: ClientConnection, head: RequestHead, caller: Caller, plan: Plan) -> None:
        """To the ExApp."""
        verdict = connection.verdict = plan.verdict
        added = caller.added(plan.identity, verdict.prefix)
        self._forward(connection, head, plan.hop, request_head(head, verdict.target, added, connection.request_id))

    def _forward(self, connection: ClientConnection, head: RequestHead, hop: Hop, onward: bytes) -> None:
        """`onward` is the head as the hop gets it."""
        forwarding = Forwarding(self._upstreams, connection, head, hop, onward)
        connection.attach(forwarding)
        forwarding.start()

    def _pass_through(self, connection: ClientConnection, head: RequestHead, verdict: Engine) -> None:
        """To an engine (A 3), in an API version that it takes; what those are may have to be learned first."""
        way = passage(head.method, verdict.target, head.query)
        if isinstance(way, str):
            connection.refuse(403, way)
            return
        api = self._engines.api(verdict.port)
        if api is None:
            self._spawn(self._learn_engine(connection, head, verdict.port, way))
        else:
            self._to_engine(connection, head, verdict.port, way, api)

    async def _learn_engine(self, connection: ClientConnection, head: RequestHead, port: int, way: Passage) -> None:
        try:
            api = await self._engines.learn(port)
        except EngineError as error:
            if connection.waits(head):
                connection.refuse(503, str(error))
            return
        if connection.waits(head):
            self._to_engine(connection, head, port, way, api)

    def _to_engine(
        self, connection: ClientConnection, head: RequestHead, port: int, way: Passage, api: ApiRange
    ) -> None:
        way, login = self._engines.registries.ask(way)
        onward = engine_head(head, way.target(api), login)
        self._forward(connection, head, Hop(self._engines.target(port), self._engines.name(port)), onward)

    def _refuse(self, connection: ClientConnection, caller: Caller, verdict: Refuse) -> None:
        if verdict.strike:
            self._instance.strike(caller.ban_key, verdict.reason)
        if verdict.banned and self._settings.bans.action == "drop":
            connection.drop()
        else:
            connection.refuse(verdict.status, verdict.reason, verdict.retry_after)

    def finished(self, connection: ClientConnection, note: str = "") -> None:
        verdict = connection.verdict
        if isinstance(verdict, Forward):
            route = verdict.route
            if route is not None and connection.status in route.bruteforce_protection and not verdict.signed:
                self._instance.strike(connection.ban_key, f"ExApp {verdict.app_id} answered {connection.status}")
            if connection.unreachable:
                self._instance.connection_failed(verdict.record.app_id)
        elif isinstance(verdict, Engine) and (connection.unreachable or connection.status in DOUBTFUL):
            self._engines.doubt(verdict.port)
        if self._access_log.enabled:
            self._log(connection, note)

    def request_id(self, connection: ClientConnection) -> bytes:
        """The id of the request under way: the sender's where it has a say, else one of our own."""
        if not connection.request_id:
            connection.request_id = b"%b-%x" % (self._id_prefix, next(self._ids))
        return connection.request_id

    def drain(self) -> None:
        """Stop taking requests: idle connections close, the others after their exchange."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    async def close(self) -> None:
        """End every connection now."""
        for connection in list(self.connections):
            connection.give_up()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._access_log.flush()

    # Parts

    def _tell_stripped(self, verdict: Forward) -> None:
        """Once per ExApp: the reverse proxy in front should be put right."""
        app_id = verdict.record.app_id
        if app_id not in self._stripped:
            self._stripped.add(app_id)
            log.warning("prefix stripped by the reverse proxy", app=app_id, fix=verdict.reason)

    def _log(self, connection: ClientConnection, note: str) -> None:
        head, verdict = connection.head, connection.verdict
        forward = verdict if isinstance(verdict, Forward) else None
        self._access_log.write(
            Entry(
                time=timestamp(),
                request_id=self.request_id(connection).decode("latin-1"),
                address=connection.address,
                method=head.method.decode("latin-1") if head else "-",
                path=head.path.decode("latin-1") if head else "-",
                app=forward.app_id if forward else "",
                user=forward.user if forward else "",
                status=connection.status,
                sent=connection.sent,
                seconds=monotonic() - connection.started if connection.started else 0.0,
                reason=note or (verdict.reason if verdict else ""),
            )
        )


def _identity(verdict: Forward) -> bytes:
    """The headers that the ExApp trusts (A 2.6)."""
    return b"ex-app-id: %b\r\nex-app-version: %b\r\nauthorization-app-api: %b\r\naa-version: %b\r\n" % (
        verdict.app_id.encode("latin-1", "replace"),
        _printable(verdict.record.version),
        verdict.authorization,
        verdict.aa_version,
    )


@lru_cache(maxsize=1024)
def _printable(text: str) -> bytes:
    """Header-safe bytes: no control character of a version text may end the line."""
    return "".join(c for c in text if c.isprintable()).encode("utf-8", "replace")
