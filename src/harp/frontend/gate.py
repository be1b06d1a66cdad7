"""From a request to its handler: who is it, what may be seen, and where it goes.

`Gate` is the shell around the pure decision: it finds the client's address, fetches the facts that are missing, and
turns the verdict into a hop for the proxy or into an answer. When every fact is known, all of this is one synchronous
call.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import lru_cache, partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import structlog

from harp.frontend.books import Books
from harp.frontend.caller import Caller, Callers, is_request_id
from harp.frontend.connection import ClientConnection
from harp.frontend.exchange import Exchange
from harp.frontend.open_connections import OpenConnections
from harp.frontend.plans import Plan, Plans
from harp.frontend.seen import seen_line
from harp.net.deadlines import Deadlines
from harp.net.targets import Inner, exapp_target, web_target
from harp.net.tasks import Tasks
from harp.net.turns import Turns
from harp.policy.bans import app_key
from harp.policy.decide import KnownFacts, Learned, Rules, decide
from harp.policy.exapp import RecordFact, VisitorFact
from harp.policy.exapp_target import ExAppTargets
from harp.policy.paths import ExAppPath, locate
from harp.policy.question import Question, VisitorLogin
from harp.policy.verdict import Control, Engine, Forward, Gateway, Missing, NeedRecord, NeedVisitor, Refuse, Verdict
from harp.proxy.forward import Forwarding, Hop
from harp.proxy.upstreams import Upstreams
from harp.settings import Settings
from harp.wire.ends import How
from harp.wire.forwarding import control_head, gateway_head, request_head
from harp.wire.requests import RequestHead, RequestReader

if TYPE_CHECKING:
    from harp.proxy.replicas import Replicas

log = structlog.get_logger()

CONTROL = Inner("control")
TO_CONTROL = Hop(CONTROL, "the control API")
TO_ENGINE = b"/engine"  # the control API's place for what passes to engines
LEARNING = 10.0  # seconds that anything but Nextcloud may take before a request is decided about
PUBLIC_PATIENCE = 2.5  # seconds a request to a PUBLIC route waits to learn who is calling; then it is anonymous
ECHOING = frozenset((b"TRACE", b"TRACK"))  # servers that know them answer with the request, identity included
FORGET = 60.0  # seconds for which the header lines that clients repeat are known, at most
HOPS = 1024  # ways to ExApps, remembered
IDENTITIES = 4096  # of users at ExApps, remembered
CLIENT_ERRORS = range(400, 500)
MOST_FACTS = 4  # facts fetched for one request; two are ever needed, a changing cache may ask again


class Knowledge(KnownFacts, Protocol):
    """What the gate needs of a Nextcloud: `nextcloud.instance.Instance`."""

    rules: Rules

    @property
    def version(self) -> int:
        """Another one whenever a record has changed or a ban has begun."""

    def digest(self, cookie: bytes, authorization: bytes | None) -> bytes:
        """The name under which the owner of these credentials is remembered."""

    async def record_of(self, app_id: str, source: str = "") -> RecordFact:
        """Ask Nextcloud for the record of an ExApp. `source` is the client's ban key."""

    async def visitor_of(
        self,
        app_id: str,
        digest: bytes,
        login: VisitorLogin,
        address: str,
        source: str = "",
        patience: float | None = None,
    ) -> VisitorFact:
        """Ask Nextcloud whose `login` this is, and wait for `patience` seconds at most."""

    def lasting(self, digest: bytes) -> float:
        """Until when what is known of the owner of these credentials will do, by the clock of deadlines."""

    def strike(self, ban_key: str, reason: str, proxy_key: str = "") -> None:
        """Count a strike against a client, and the peer that has named it."""

    def connection_failed(self, app_id: str) -> None:
        """An ExApp's address did not answer."""


class Gate(OpenConnections):
    """Decides about every request to one Nextcloud's ExApps."""

    def __init__(
        self,
        settings: Settings,
        instance: Knowledge,
        upstreams: Upstreams,
        deadlines: Deadlines,
        books: Books,
        turns: Turns | None = None,
        plans: Plans | None = None,
        reader: RequestReader | None = None,
    ) -> None:
        """`reader` is that of a reception, which sees to it."""
        super().__init__(settings.limits)
        self.deadlines = deadlines
        self.turns = turns or Turns()
        self.timeouts = settings.timeouts
        special = frozenset({settings.proxies.header.encode()})
        self.reader = reader or RequestReader(settings.limits.headers, special)
        self._is_alone = reader is None
        self.patience = 2 * settings.nextcloud.timeout + LEARNING  # a record, then a visitor
        self.inspected = False
        self._settings = settings
        self._instance = instance
        self._upstreams = upstreams
        self._books = books
        self._rules = instance.rules
        self._callers = Callers(settings.proxies, instance.rules, instance.digest, settings.instance)
        self.is_neighbour = self._callers.is_neighbour
        self._plans = plans or Plans(deadlines)
        self.replicas: Callable[[str], Replicas | None] | None = None  # of an ExApp, where a cluster lists them
        self._hop = lru_cache(HOPS)(partial(_hop, instance.rules.targets))
        self._tasks = Tasks()
        self._loop = asyncio.get_running_loop()
        self._ids = count(1)
        self._id_prefix = os.urandom(4).hex().encode()
        self._stripped: set[str] = set()
        self._nextcloud = Hop(web_target(settings.gateway_url), "Nextcloud") if settings.gateway_url else None
        self.deadline = deadlines.now + FORGET
        deadlines.watch(self)

    def reload(self, settings: Settings) -> None:
        """Take over what may change while running: the trusted proxies."""
        self._callers = Callers(settings.proxies, self._rules, self._instance.digest, settings.instance)
        self.is_neighbour = self._callers.is_neighbour

    def expired(self) -> None:
        """Timed: forget what requests have said, cookies and passwords among it; who comes back is read again."""
        self.deadline = self.deadlines.now + FORGET
        if self._is_alone:
            self.reader.forget()
        self._callers.forget()
        self._plans.forget()

    # Requests

    def begin(self, connection: ClientConnection, head: RequestHead | None, last: Exchange | None) -> Exchange:
        peer = connection.peer
        if head is None:
            request_id = b"%b-%x" % (self._id_prefix, next(self._ids))
            return Exchange(None, request_id, peer, trusted=True, peer=peer)  # nothing behind us is named yet
        if last is not None and last.head is head and last.caller is not None and last.caller.read_by is self._callers:
            caller, path, plan = last.caller, last.path, last.plan
        else:
            caller = self._callers.find(head.fields, peer, secure=connection.secure)
            path, plan = locate(head.path), None
        request_id = caller.request_id
        if not request_id and caller.neighbour and is_request_id(head.request_id):
            request_id = head.request_id
        return Exchange(
            head,
            request_id or b"%b-%x" % (self._id_prefix, next(self._ids)),
            caller.address,
            caller,
            path,
            caller.trusted,
            monotonic(),
            peer,
            plan,
        )

    def handle(self, connection: ClientConnection, exchange: Exchange) -> None:
        try:
            head, caller, path = exchange.head, exchange.caller, exchange.path
            assert head is not None
            assert caller is not None
            if head.method in ECHOING:
                self._act(connection, exchange, Refuse(405, "TRACE would show a request's own secrets"))
                return
            version = self._instance.version
            if isinstance(path, ExAppPath):
                plan = exchange.plan
                if plan is None or plan.version != version or self.deadlines.now >= plan.until:
                    plan = self._plans.find(caller.asker, path, version)
                if plan is not None:
                    self._follow(connection, exchange, head, caller, path.target, plan)
                    return
            self._decide(connection, exchange, head, caller, version)
        except Exception:
            self._failed(connection, exchange)

    def _decide(
        self, connection: ClientConnection, exchange: Exchange, head: RequestHead, caller: Caller, version: int
    ) -> None:
        question = Question(head.path, caller.asker)
        answer = decide(question, self._instance, self._rules)
        if isinstance(answer, (NeedRecord, NeedVisitor)):
            self._spawn(connection, exchange, self._learn(connection, exchange, question, answer))
        elif isinstance(answer, Forward) and not answer.strike:
            lasting = self._instance.lasting(question.asker.credentials.digest)
            plan = self._plan(answer, version, self._plans.until(lasting))
            if isinstance(exchange.path, ExAppPath):
                self._plans.keep(question.asker, exchange.path, plan)
            self._follow(connection, exchange, head, caller, answer.target, plan)
        else:
            self._act(connection, exchange, answer)

    def _spawn(self, connection: ClientConnection, exchange: Exchange, work: Coroutine[None, None, None]) -> None:
        """Go on with a request in a task; however that ends, the request is answered."""
        self._tasks.start(self._guarded(connection, exchange, work))

    async def _guarded(
        self, connection: ClientConnection, exchange: Exchange, work: Coroutine[None, None, None]
    ) -> None:
        try:
            await work
        except Exception:
            self._failed(connection, exchange)

    def _failed(self, connection: ClientConnection, exchange: Exchange) -> None:
        """Answer a request at which we have failed; called while its exception is handled."""
        request_id = exchange.request_id.decode("latin-1")
        log.exception("request failed", request_id=request_id)
        connection.fail(exchange, f"internal error; see the log for request id {request_id}")

    async def _learn(
        self, connection: ClientConnection, exchange: Exchange, question: Question, missing: Missing
    ) -> None:
        """Ask for what the decision needs, then decide."""
        asked = monotonic()
        facts = Learned(self._instance)
        answer: Verdict | Missing = missing
        for _ in range(MOST_FACTS):
            if isinstance(answer, NeedRecord):
                record = await self._instance.record_of(answer.app_id, question.asker.ban_key)
                facts.learn_record(answer.app_id, record)
            elif isinstance(answer, NeedVisitor):
                digest = question.asker.credentials.digest
                facts.learn_visitor(digest, await self._visitor_of(answer, digest, exchange))
            else:
                break
            answer = decide(question, facts, self._rules)
        if isinstance(answer, (NeedRecord, NeedVisitor)):
            answer = Refuse(503, "no decision was reached", retry_after=1)
        exchange.waited("nextcloud", monotonic() - asked)
        if connection.waits(exchange):
            self._act(connection, exchange, answer)

    async def _visitor_of(self, need: NeedVisitor, digest: bytes, exchange: Exchange) -> VisitorFact:
        caller = exchange.caller
        assert caller is not None
        login = caller.login or VisitorLogin()
        patience = PUBLIC_PATIENCE if need.optional else None
        return await self._instance.visitor_of(
            need.app_id, digest, login, caller.address, caller.asker.ban_key, patience=patience
        )

    def _act(self, connection: ClientConnection, exchange: Exchange, verdict: Verdict) -> None:
        exchange.verdict = verdict
        head, caller = exchange.head, exchange.caller
        assert head is not None
        assert caller is not None
        match verdict:
            case Forward():
                if verdict.strike:
                    self._instance.strike(caller.asker.ban_key, verdict.reason, caller.asker.proxy_key)
                self._follow(connection, exchange, head, caller, verdict.target, self._plan(verdict))
            case Control(target, walk=walk):
                seen = seen_line(connection, head, caller, self._settings.proxies) if walk else b""
                self._to_control(connection, exchange, head, caller, target, seen)
            case Engine(_, target):  # the control API knows engines, and makes the call in our own words
                self._to_control(connection, exchange, head, caller, TO_ENGINE + target)
            case Gateway():
                assert self._nextcloud is not None
                if self._books.tracer is not None:
                    head = self._books.tracer.onward(exchange, head)
                onward = gateway_head(head, caller.client_side, exchange.request_id)
                self._forward(connection, head, self._nextcloud, onward)
            case Refuse():
                self._refuse(connection, caller, verdict)

    def _to_control(
        self,
        connection: ClientConnection,
        exchange: Exchange,
        head: RequestHead,
        caller: Caller,
        target: bytes,
        seen: bytes = b"",
    ) -> None:
        onward = control_head(head, target, caller.address.encode(), exchange.request_id, seen)
        self._forward(connection, head, TO_CONTROL, onward)

    def _plan(self, verdict: Forward, version: int = 0, until: float = 0.0) -> Plan:
        if verdict.stripped:
            self._tell_stripped(verdict)
        app = verdict.record
        location_prefix = verdict.prefix if self._settings.rewrite_location else b""
        hop = self._hop(verdict.app_id, app.app_id, app.host, app.port, location_prefix)
        if self.replicas is not None:
            hop = Hop(hop.target, hop.name, hop.location_prefix, self.replicas(app.app_id))
        identity = _identity(verdict, verdict.prefix)
        return Plan(verdict, hop, identity, self._books.traffic_of(app.app_id), version, until)

    def _follow(
        self,
        connection: ClientConnection,
        exchange: Exchange,
        head: RequestHead,
        caller: Caller,
        target: bytes,
        plan: Plan,
    ) -> None:
        """To the ExApp. `target` is this request's; that of the plan is the first one's."""
        verdict, hop = plan.verdict, plan.hop
        exchange.verdict, exchange.plan, exchange.traffic = verdict, plan, plan.traffic
        if self._books.tracer is not None:
            head = self._books.tracer.onward(exchange, head)
        identity, outer = plan.identity, caller.outer_prefix
        if outer:
            identity = _identity(verdict, outer + verdict.prefix)
        onward = request_head(head, target, caller.lines, identity, exchange.request_id)
        forwarding = Forwarding(self._upstreams, connection, head, hop, onward, self.timeouts.server)
        if hop.replicas is not None and hop.replicas.several:
            forwarding = exchange.spread = hop.replicas.spread(forwarding, outer + verdict.prefix)
        connection.attach(forwarding)
        forwarding.start()

    def _forward(self, connection: ClientConnection, head: RequestHead, hop: Hop, onward: bytes) -> None:
        """`onward` is the head as the hop gets it."""
        forwarding = Forwarding(self._upstreams, connection, head, hop, onward, self.timeouts.server)
        connection.attach(forwarding)
        forwarding.start()

    def _refuse(self, connection: ClientConnection, caller: Caller, verdict: Refuse) -> None:
        if verdict.strike:
            self._instance.strike(caller.asker.ban_key, verdict.reason, caller.asker.proxy_key)
        if verdict.banned and self._settings.bans.action == "drop":
            connection.end(How.RESET)
        else:
            connection.refuse(verdict.status, verdict.reason, verdict.retry_after)

    def finished(self, exchange: Exchange) -> None:
        if exchange.spread is not None:
            exchange.spread.leave()
            exchange.spread = None
        if exchange.status >= 400:
            self._look_at_failure(exchange)
        self._books.enter(exchange)

    def _look_at_failure(self, exchange: Exchange) -> None:
        """Count a strike where the ExApp's route asks for it, and ask again where the ExApp is."""
        verdict, caller = exchange.verdict, exchange.caller
        if isinstance(verdict, Forward):
            route, status = verdict.route, exchange.status
            if (
                status in CLIENT_ERRORS
                and caller is not None
                and route is not None
                and status in route.bruteforce_protection
                and not caller.trusted
            ):
                key = app_key(caller.asker.ban_key, verdict.record.app_id)  # an ExApp bans from itself alone
                self._instance.strike(key, f"ExApp {verdict.app_id} answered {status}")
            if exchange.unreachable:
                self._instance.connection_failed(verdict.record.app_id)

    async def close(self) -> None:
        """End every connection now."""
        for connection in list(self.connections):
            connection.end(How.RESET, "HaRP is stopping")
        self.deadlines.drop(self)
        await self._tasks.close()
        self._books.close()

    # Parts

    def _tell_stripped(self, verdict: Forward) -> None:
        """Once per ExApp: the reverse proxy in front should be put right."""
        app_id = verdict.record.app_id
        if app_id not in self._stripped:
            self._stripped.add(app_id)
            log.warning("prefix stripped by the reverse proxy", app=app_id, fix=verdict.reason)


def _hop(targets: ExAppTargets, name: str, app_id: str, host: str, port: int, location_prefix: bytes) -> Hop:
    """The way to an ExApp; `name` is its id as the URL spells it."""
    return Hop(exapp_target(app_id, host, port, targets), f"ExApp {name}", location_prefix)


def _identity(verdict: Forward, prefix: bytes) -> bytes:
    """The header lines that the ExApp trusts (A 2.6), and the prefix under which clients see it."""
    return _identity_lines(verdict.app_id, verdict.record.version, verdict.authorization, verdict.aa_version, prefix)


@lru_cache(maxsize=IDENTITIES)  # so that not every plan has its own
def _identity_lines(app_id: str, version: str, authorization: bytes, aa_version: bytes, prefix: bytes) -> bytes:
    return (
        b"ex-app-id: %b\r\nex-app-version: %b\r\nauthorization-app-api: %b\r\naa-version: %b\r\n"
        b"x-forwarded-prefix: %b\r\n"
        % (app_id.encode("latin-1", "replace"), _printable(version), authorization, aa_version, prefix)
    )


def _printable(text: str) -> bytes:
    """Header-safe bytes: no control character of a version text may end the line."""
    return "".join(c for c in text if c.isprintable()).encode("utf-8", "replace")
