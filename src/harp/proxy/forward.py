"""Forward one request, and whatever becomes of it, to its target.

A `Forwarding` joins one client exchange with one borrowed connection. When an idle connection is at hand the whole
exchange runs in callbacks; only making a new connection takes a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

import structlog
from msgspec import Struct

from harp.errors import Unreachable
from harp.net.deadlines import NEVER
from harp.net.targets import EngineTunnel, ExAppTunnel, Target
from harp.proxy.exchange import Downstream
from harp.proxy.listening import STEP, Listening, Verdict
from harp.proxy.upstream import Upstream
from harp.proxy.upstreams import Upstreams
from harp.wire.chunked import chunk, last_chunk
from harp.wire.ends import How
from harp.wire.forwarding import interim_response, switching_start, trailers_to_pass, with_prefix, without_id
from harp.wire.http import Fields
from harp.wire.requester import BODY, HEAD, RAW, WAITING
from harp.wire.requests import RequestHead
from harp.wire.responses import ResponseHead
from harp.wire.websocket import CLOSE_GOING_AWAY, FrameFinder

if TYPE_CHECKING:
    from harp.proxy.replicas import Replicas

FRESH = 2.0  # seconds: what may not be sent twice goes out on no connection that was idle longer
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"PROPFIND", b"REPORT", b"SEARCH"))
LARGE = 1 << 20  # bytes of a request body that are worth a new stream of a tunnel
QUIET = 0.5  # seconds without a byte, after which a WebSocket is taken to be between two frames
RETRY_AFTER = 2  # seconds, for clients of an ExApp that is unreachable

log = structlog.get_logger()


class Hop(Struct, frozen=True):
    """Where requests go next, and how."""

    target: Target
    name: str  # for messages: "ExApp hello"
    location_prefix: bytes = b""  # put before paths in Location that lack it; b"" = leave them alone
    replicas: Replicas | None = None  # of the ExApp, where they are known: each request goes to one of them


class Forwarding(Struct, eq=False):
    """One exchange on its way. Handler of the client's side, User of the borrowed connection.

    More than 25 methods, because it has all that these two interfaces ask for; each is one step of the exchange.
    """

    _upstreams: Upstreams
    _downstream: Downstream
    _request: RequestHead  # what the client has sent
    _hop: Hop
    _head: bytes  # what is sent in its place
    _silence: float  # seconds without a byte of the answer until it is given up
    _connection: Upstream | None = None
    _task: asyncio.Task[None] | None = None
    _sent_body: bool = False
    _started: bool = False  # the response head is on its way
    _ended: bool = False
    _retried: bool = False
    _resent: bool = False
    _listening: Listening | None = None  # of the tunnel, while a new stream in it is silent
    _finder: FrameFinder | None = None  # of a relayed WebSocket that is to be closed
    _quiet_since: float = 0.0  # the same: when its last byte came
    _client_done: bool = False  # of an upgraded stream
    _server_done: bool = False

    def start(self) -> None:
        """Send the request, on an idle connection if there is a good one."""
        request, upstreams = self._request, self._upstreams
        if request.length > LARGE and self._is_tunneled:  # a used stream's window is half open at worst
            self._connect()
            return
        idle = upstreams.timeouts.upstream_idle if request.method in IDEMPOTENT else FRESH
        connection = upstreams.take(self._hop.target, idle)
        if connection is None:
            self._connect()
        else:
            self._send(connection)

    def _connect(self) -> None:
        self._task = self._upstreams.start(self._connect_and_send())

    async def _connect_and_send(self) -> None:
        began = monotonic()
        try:
            connection = await self._reach()
            self._task = None
            self._waited(began)
            if self._ended:
                connection.end()
            else:
                self._send(connection)
        except Unreachable as error:
            self._waited(began)
            self._unreachable(f"{self._hop.name} cannot be reached: {error}")
        except Exception:
            log.exception("connecting failed", target=self._hop.name)
            self._task = None
            if not self._ended:
                self._ended = True
                self._downstream.refuse(500, "internal error; the log has the reason")

    def _reach(self) -> Coroutine[Any, Any, Upstream]:
        """Make a new connection. Raises Unreachable."""
        return self._upstreams.connect(self._hop.target)

    def _waited(self, began: float) -> None:
        if not self._ended:
            self._downstream.waited("tunnel" if self._is_tunneled else "connect", monotonic() - began)

    def _unreachable(self, reason: str) -> None:
        self._task = None
        if not self._ended:
            self._ended = True
            self._downstream.refuse(503, reason, RETRY_AFTER, unreachable=True)

    def _send(self, connection: Upstream) -> None:
        self._connection = connection
        limit = self._upstreams.timeouts.response
        if connection.offer is not None and not connection.reused:
            self._listening = self._upstreams.listening(connection.offer)
            limit = self._response_limit()
        request = self._request
        bodyless = request.method == b"HEAD"
        if not request.length:
            connection.send(self, self._head, bodyless, True, limit)
            return
        data, complete, trailers = self._downstream.first_body()
        if self._ended:
            return
        self._sent_body = complete or bool(data)
        if self._is_chunked:
            data = (chunk(data) if data else b"") + (last_chunk(trailers_to_pass(trailers)) if complete else b"")
        connection.send(self, self._head, bodyless, complete, limit, data)
        if not complete and not connection.blocked:
            self._downstream.resume_body()

    # Handler: the client's side

    def body(self, data: bytes) -> None:
        connection = self._connection
        if connection is None or self._ended:
            return  # the answer came before the body: what is left of it goes nowhere
        state = connection.state
        if state is RAW:
            connection.transport.write(data)
            self._touch(connection)
            return
        self._sent_body = True
        if state is WAITING or state is HEAD:
            connection.send_body(chunk(data) if self._is_chunked else data, self._response_limit())
        else:  # the answer has begun already; it is governed by its own limit
            connection.transport.write(chunk(data) if self._is_chunked else data)

    def body_end(self, trailers: Fields) -> None:
        connection = self._connection
        if connection is None or self._ended:
            return
        if connection.state is RAW:
            self._client_done = True
            self._half_closed(connection)
            return
        self._sent_body = True  # an empty one has an end, too, which the client says once
        if self._is_chunked:
            connection.transport.write(last_chunk(trailers_to_pass(trailers)))
        connection.request_done()

    def blocked(self) -> None:
        connection = self._connection
        if connection is not None and connection.state in (WAITING, HEAD, BODY, RAW):
            connection.pause()
            if connection.state in (BODY, RAW):
                connection.deadline = NEVER  # the client's limit counts now

    def drained(self) -> None:
        connection = self._connection
        if connection is not None and connection.state in (WAITING, HEAD, BODY, RAW):
            if connection.state in (BODY, RAW):
                self._touch(connection)
            connection.resume()

    def gone(self, reason: str) -> None:
        self._ended = True
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.end()
            self._connection = None

    def drain(self) -> bool:
        connection = self._connection
        if connection is None or connection.state is not RAW or self._server_done or not self._is_websocket:
            return False
        if not self._is_between_frames(connection):
            return False
        self._ended = True
        self._connection = None
        connection.end()
        self._downstream.send_body(CLOSE_GOING_AWAY)
        self._downstream.end(How.LINGER)
        return True

    @property
    def _is_tunneled(self) -> bool:
        return isinstance(self._hop.target, (ExAppTunnel, EngineTunnel))

    @property
    def _is_chunked(self) -> bool:
        return self._request.length < 0

    @property
    def _is_websocket(self) -> bool:
        return self._request.upgrade is not None and self._request.upgrade.lower() == b"websocket"

    def _is_between_frames(self, connection: Upstream) -> bool:
        """May a frame be put in now? Nobody has followed the frames up to here: that is only asked once, at the end."""
        now = self._upstreams.deadlines.now
        if self._finder is None:
            self._finder = FrameFinder()
            self._quiet_since = now if connection.deadline == NEVER else connection.deadline - self._silence
        return self._finder.at_boundary or now - self._quiet_since >= QUIET

    # User: the connection's side

    def on_interim(self, head: ResponseHead) -> None:
        self._heard()
        self._downstream.send_interim(interim_response(head))

    def on_answer(self, status: int, start: bytes, data: bytes) -> None:
        if self._listening is not None:
            self._heard()
        if self._hop.location_prefix:
            start = with_prefix(start, self._hop.location_prefix)
        self._ended = True
        self._connection = None
        self._downstream.send_answer(status, start, data)

    def on_head(self, head: ResponseHead, length: int, data: bytes, end: bool) -> None:
        self._started = True
        if self._listening is not None:
            self._heard()
        start = without_id(head.start)
        if self._hop.location_prefix:
            start = with_prefix(start, self._hop.location_prefix)
        connection = self._connection
        if end:
            self._ended = True
            self._connection = None
        elif connection is not None:
            self._touch(connection)
        self._downstream.send_head(head.status, start, length, data, end)

    def on_data(self, data: bytes) -> None:
        if self._finder is not None:
            self._finder.feed(data)
            self._quiet_since = self._upstreams.deadlines.now
        connection = self._connection
        if connection is not None:
            blocked = self._downstream.blocked
            connection.deadline = NEVER if blocked else self._upstreams.deadlines.now + self._silence
        self._downstream.send_body(data)

    def on_end(self, trailers: Fields) -> None:
        self._ended = True
        self._connection = None
        self._downstream.send_end(trailers_to_pass(trailers))

    def on_upgrade(self, head: ResponseHead, data: bytes) -> None:
        connection = self._connection
        assert connection is not None
        if self._request.upgrade is None:
            connection.end()
            self.on_lost("switched to a protocol that nobody asked for", status=502, silent=False)
            return
        self._started = True
        self._silence = self._upstreams.timeouts.tunnel
        self._heard()
        self._touch(connection)
        start = switching_start(without_id(head.start), head.upgrade or self._request.upgrade)
        self._downstream.upgrade(start, data)

    def on_eof(self) -> None:
        self._server_done = True
        connection = self._connection
        if connection is not None:
            self._downstream.finish()
            if not self._ended:
                self._half_closed(connection)

    def on_silence(self) -> float | None:
        """No byte of an answer within the limit: seconds to go on waiting, None to give up."""
        connection, listening = self._connection, self._listening
        if connection is None or listening is None:
            return None
        waited = self._upstreams.deadlines.now - connection.sent_at
        match listening.verdict(connection.number):
            case Verdict.OPEN:
                return STEP if waited < self._upstreams.timeouts.response else None
            case Verdict.LOST:
                self._give_up("but nothing listens behind it (frpc's log says why)")
            case Verdict.DOUBTFUL if self._may_resend():
                self._resend()
            case Verdict.DOUBTFUL if listening.missed(connection.number):
                self._give_up("but nothing was listening behind it when this request was sent; send it again")
            case _:  # it works on it, for as long as it likes
                self._listening = None
                left = self._upstreams.timeouts.response - waited
                return left if left > 0 else None
        return None

    def _heard(self) -> None:
        """The first byte of an answer, through a new stream of a tunnel."""
        connection = self._connection
        if self._listening is not None and connection is not None:
            self._listening.heard(connection.number)
            connection.deadline = max(connection.deadline, connection.sent_at + self._upstreams.timeouts.response)
        self._listening = None

    def _response_limit(self) -> float:
        """Seconds until somebody looks why there is no answer."""
        limit = self._upstreams.timeouts.response
        return limit if self._listening is None else min(limit, self._listening.first_silence)

    def _may_resend(self) -> bool:
        return not (self._resent or self._sent_body or self._request.length) and self._request.method in IDEMPOTENT

    def _resend(self) -> None:
        """Nobody has got the request, or may have got it: send it once more, on a new stream."""
        self._resent = True
        if self._connection is not None:
            self._connection.end()
        self._connection = self._listening = None
        self._connect()

    def _give_up(self, reason: str) -> None:
        self._ended = True
        if self._connection is not None:
            self._connection.end()
        self._connection = None
        self._downstream.refuse(502, f"the tunnel of {self._hop.name} is up, {reason}")

    def on_lost(self, reason: str, *, status: int, silent: bool) -> None:
        connection = self._connection
        self._connection = self._listening = None
        if self._ended:
            return
        if silent and self._may_retry(connection):
            self._retried = True
            self._downstream.pause_body()  # until there is a connection that takes it
            self._connect()
            return
        self._ended = True
        if not self._started:
            self._downstream.refuse(status, f"{self._hop.name} {reason}")
        elif connection is not None and self._is_websocket:
            self._downstream.end(How.LINGER)
        else:
            self._downstream.end(How.GRACEFUL, reason)

    def on_blocked(self) -> None:
        self._downstream.pause_body()

    def on_drained(self) -> None:
        self._downstream.resume_body()

    # Parts

    def _may_retry(self, connection: Upstream | None) -> bool:
        """A kept connection that closes without a byte had probably closed before our request reached it
        (RFC 9112 section 9.3.1); a fresh tunnel stream that does so met a client that was not ready (F 5.5).
        """
        if self._retried or self._sent_body or connection is None or self._request.method not in IDEMPOTENT:
            return False
        return connection.reused or isinstance(self._hop.target, (ExAppTunnel, EngineTunnel))

    def _touch(self, connection: Upstream) -> None:
        """Something moved: start the limit for silence again."""
        blocked = self._downstream.blocked
        connection.deadline = NEVER if blocked else self._upstreams.deadlines.now + self._silence

    def _half_closed(self, connection: Upstream) -> None:
        """One side of an upgraded stream has finished: pass it on, and end when both have."""
        if self._client_done and self._server_done:
            self._ended = True
            self._connection = None
            connection.end()
            self._downstream.end(How.LINGER)
            return
        self._silence = min(self._silence, self._upstreams.timeouts.half_closed)
        self._touch(connection)
        if self._client_done and not isinstance(self._hop.target, (ExAppTunnel, EngineTunnel)):
            connection.transport.write_eof()
        # Behind a tunnel the end is not passed on: frpc would cut the other direction as well (F 5.6).
