"""One pooled connection to an ExApp, an engine or a service of ours: transport, limits and back-pressure.

What arrives is read by `wire.requester`; who has borrowed the connection is its `User`.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from harp.errors import PeerError
from harp.net.deadlines import NEVER, Deadlines
from harp.net.ports import Offer
from harp.net.targets import Target
from harp.net.turns import BIG, Turns
from harp.wire.http import Fields
from harp.wire.requester import (
    BODY,
    CLOSED,
    HEAD,
    IDLE,
    RAW,
    RESTING,
    WAITING,
    Data,
    End,
    FinalHead,
    Interim,
    Requester,
    RequesterState,
    What,
)
from harp.wire.responses import ResponseHead

HIGH_WATER = 256 * 1024  # bytes waiting to be sent before the client is told to pause


class User(Protocol):
    """Who has borrowed the connection for one exchange.

    After on_answer, on_head with `end`, on_end and on_lost it is over.
    """

    def on_interim(self, head: ResponseHead) -> None:
        """A response with 1xx, which another one follows."""

    def on_answer(self, status: int, start: bytes, data: bytes) -> None:
        """A whole final response, as `requester.Whole`."""

    def on_head(self, head: ResponseHead, length: int, data: bytes, end: bool) -> None:
        """The final response, as `requester.FinalHead`."""

    def on_upgrade(self, head: ResponseHead, data: bytes) -> None:
        """A response with 101; `data` are the first bytes after it."""

    def on_data(self, data: bytes) -> None:
        """Bytes of the response's body, without the framing of chunks."""

    def on_end(self, trailers: Fields) -> None:
        """The response is complete; `trailers` came after the last chunk."""

    def on_eof(self) -> None:
        """The other side of a raw stream has finished sending."""

    def on_silence(self) -> float | None:
        """No byte of an answer within the limit: seconds to go on waiting, None to give up."""

    def on_lost(self, reason: str, *, status: int, silent: bool) -> None:
        """The exchange cannot go on. `silent`: not a byte came, so the request may be worth another try."""

    def on_blocked(self) -> None:
        """More than HIGH_WATER bytes wait to be sent: send no more."""

    def on_drained(self) -> None:
        """There is room again after on_blocked."""


class Nobody:
    """A user that is not interested: what still arrives for an exchange that was given up goes nowhere."""

    def on_interim(self, head: ResponseHead) -> None: ...

    def on_answer(self, status: int, start: bytes, data: bytes) -> None: ...

    def on_head(self, head: ResponseHead, length: int, data: bytes, end: bool) -> None: ...

    def on_upgrade(self, head: ResponseHead, data: bytes) -> None: ...

    def on_data(self, data: bytes) -> None: ...

    def on_end(self, trailers: Fields) -> None: ...

    def on_eof(self) -> None: ...

    def on_silence(self) -> float | None: ...

    def on_lost(self, reason: str, *, status: int, silent: bool) -> None: ...

    def on_blocked(self) -> None: ...

    def on_drained(self) -> None: ...


NOBODY = Nobody()


class Pool(Protocol):
    """Where a connection goes between two exchanges."""

    deadlines: Deadlines
    turns: Turns

    def made(self) -> None: ...

    def give_back(self, connection: Upstream) -> None: ...

    def rested(self, connection: Upstream) -> None: ...

    def lost(self, connection: Upstream) -> None: ...


class Upstream:
    """Sends one request at a time and hands the answers to its user."""

    __slots__ = (
        "_pool",
        "blocked",
        "deadline",
        "idle_since",
        "in_line",
        "number",
        "offer",
        "paused",
        "requester",
        "resting",
        "reused",
        "sent_at",
        "target",
        "transport",
        "user",
    )

    transport: asyncio.Transport

    def __init__(self, pool: Pool, target: Target) -> None:
        self._pool = pool
        self.requester = Requester()
        self.target = target
        self.offer: Offer | None = None  # of the tunnel that this is a stream of
        self.number = 0  # of the stream, as `Listening` counts them
        self.user: User = NOBODY
        self.deadline = NEVER
        self.resting = False
        self.idle_since = 0.0
        self.sent_at = 0.0  # when the request under way was sent
        self.reused = False
        self.blocked = False
        self.paused = False  # the user wants nothing more for now
        self.in_line = False  # nothing is read until others have been served

    def __repr__(self) -> str:
        state = self.requester.state.name.lower()
        flags = "".join(f", {name}" for name in ("reused", "blocked", "paused") if getattr(self, name))
        return f"<Upstream to {self.target}, {state}{flags}>"

    @property
    def state(self) -> RequesterState:
        """Where the exchange on this connection is."""
        return self.requester.state

    # The exchange

    def send(self, user: User, head: bytes, bodyless: bool, complete: bool, limit: float, body: bytes = b"") -> None:
        """Send a request head, and the first of its body, framed already.

        `bodyless`: the method is HEAD. `complete`: nothing more of the body follows.
        """
        self.requester.request(bodyless, complete)
        self.user = user
        now = self.sent_at = self._pool.deadlines.now
        self.deadline = now + limit
        if body:
            self.transport.writelines((head, body))
        else:
            self.transport.write(head)

    def send_body(self, data: bytes, limit: float) -> None:
        """More of the request body, framed already; the limit for the answer starts again."""
        self.deadline = self._pool.deadlines.now + limit
        self.transport.write(data)

    def request_done(self) -> None:
        """The request body is complete."""
        self.requester.request_complete()

    def pause(self) -> None:
        """Read no more of the answer."""
        self.paused = True
        self.transport.pause_reading()

    def resume(self) -> None:
        """Read on, in turn when others wait as well."""
        self.paused = False
        if self.in_line:
            return
        if self.requester.more or (self.offer is None and self._pool.turns.crowded):
            self._stand_in_line()
        else:
            self.transport.resume_reading()

    def end(self) -> None:
        """Give up whatever is under way: the connection is of no use any more. Its user hears nothing more."""
        self.user = NOBODY
        self._close()
        self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self._pool.made()
        self._pool.deadlines.watch(self)

    def data_received(self, data: bytes) -> None:
        requester = self.requester
        if len(data) < BIG:
            whole = requester.receive_whole(data)
            if whole is not None:
                user = self.user
                self._release()
                status, start, body = whole
                user.on_answer(status, start, body)
                return
        # A tunnel takes its turns as a whole: its streams are not read from the socket one by one.
        elif self.offer is None and self._pool.turns.spend(self, len(data)):
            self.in_line = True
            self.transport.pause_reading()
        if requester.state is RAW:
            self.user.on_data(data)
            return
        self._receive(data)
        if requester.more and not self.in_line and not self.paused:
            self._stand_in_line()

    def _receive(self, data: bytes) -> None:
        requester = self.requester
        try:
            for what in requester.receive(data):
                self._hand_over(what)
        except PeerError as error:
            if requester.state in (IDLE, RESTING):  # nobody asked: whatever it is, it cannot be an answer
                self.end()
            else:
                self._fail(f"answered what is not HTTP: {error}", 502)

    def turn_came(self) -> None:
        """Reader: others have been served, read on."""
        self.in_line = False
        if self.paused:
            return
        if self.requester.more:
            self._receive(b"")
            if self.requester.more:
                if not self.paused:
                    self._stand_in_line()
                return
        if not self.paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _stand_in_line(self) -> None:
        """Let others be served before anything more of the answer is read or decoded."""
        self.in_line = True
        self.transport.pause_reading()
        self._pool.turns.join(self)

    def _hand_over(self, what: What) -> None:
        user = self.user
        if isinstance(what, FinalHead):
            if what.end:
                self._release()
            user.on_head(what.head, what.length, what.data, what.end)
        elif isinstance(what, Data):
            user.on_data(what.data)
        elif isinstance(what, End):
            self._release()
            user.on_end(what.trailers)
        elif isinstance(what, Interim):
            user.on_interim(what.head)
        else:
            user.on_upgrade(what.head, what.data)

    def eof_received(self) -> bool:
        requester = self.requester
        if requester.state is RAW:
            self.user.on_eof()
            return True
        while requester.more:
            self._receive(b"")
        silent = requester.silent
        try:
            for what in requester.receive_end():
                self._hand_over(what)
        except PeerError as error:
            self._fail(str(error), 502, silent=silent)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.deadlines.drop(self)
        self._pool.lost(self)
        requester = self.requester
        if requester.state in (WAITING, HEAD, BODY, RAW):
            self._fail(f"broke the connection{f': {exc}' if exc else ''}", 502, silent=requester.silent)
        self._close()

    def pause_writing(self) -> None:
        self.blocked = True
        self.user.on_blocked()

    def resume_writing(self) -> None:
        self.blocked = False
        self.user.on_drained()

    def expired(self) -> None:
        """Timed: the limit of whatever is under way."""
        state = self.requester.state
        if state is IDLE:
            self.end()
        elif state is RESTING:
            self._pool.rested(self)
            self.requester.rested()
            self._pool.give_back(self)
        elif state is WAITING or state is HEAD:
            more = self.user.on_silence()
            if self.requester.state is CLOSED:
                return
            if more is None:
                self._fail("gave no answer within the time limit", 504)
            else:
                self.deadline = self._pool.deadlines.now + more
        else:
            self._fail("fell silent in the middle of its answer", 504)

    # Ends

    def _release(self) -> None:
        """The answer is complete: keep the connection for the next exchange, if it can be."""
        self.user = NOBODY
        if self.requester.state is not CLOSED and not (self.blocked or self.paused):
            self.reused = True
            self._pool.give_back(self)
            return
        self._close()
        if self.transport.get_write_buffer_size():  # who has answered need not read the rest of the request, ever
            self.transport.abort()
        else:
            self.transport.close()

    def _fail(self, reason: str, status: int, *, silent: bool = False) -> None:
        """The connection has ended in the middle of an exchange."""
        user = self.user
        self.end()
        user.on_lost(reason, status=status, silent=silent)

    def _close(self) -> None:
        self.requester.close()
        self.deadline = NEVER
