"""A yamux session over any asyncio transport, for both ends of a tunnel (F 1.3, F 1.4).

What frames mean is in wire/mux; here are the transport, limits and back-pressure.

* The socket is always read: a Go peer gives up a session whose frames are not read for 10 s. But the work for one
  session in a turn of the loop is bounded: FRAMES frames, and its share of bytes (net/turns); the rest waits.
* All frames of one loop iteration leave in one write, since each write is a TLS record: control frames first, then
  data, at most one frame from each waiting stream in turn.
* One deadline per session serves pings, a dead peer and streams whose peer never ends them; streams have no timer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

import structlog

from harp.errors import PeerError, TunnelAway
from harp.net.deadlines import NEVER, Deadlines
from harp.net.turns import BIG, SHARE, Turns
from harp.tunnel.stream import MuxStream
from harp.wire.mux import Happening, MuxEvent, Session, SessionState, words_of
from harp.wire.windows import Budget
from harp.wire.yamux import INITIAL_WINDOW, Frame, GoAway

PING_INTERVAL = 25.0  # seconds; with PING_LIMIT a dead peer is noticed within 40 s, ticks included
PING_LIMIT = 10.0  # seconds of complete silence after a ping
BATCH = 131072  # bytes of data gathered for one write to the socket
SOCKET_BUFFER = 262144  # bytes waiting for the socket before streams have to wait
FRAMES = 128  # in one turn of the loop; opening a stream and asking for a pong count for several
CONTROL_LIMIT = 65536  # bytes of control frames for a peer that does not read them
TRIPS = 4  # round trips remembered: the shortest is what the way takes without its load

Factory = Callable[[], asyncio.BaseProtocol]
P = TypeVar("P", bound=asyncio.BaseProtocol)

log = structlog.get_logger()


class _AwaitedPing:
    """Somebody waits for a sign of life."""

    def __init__(self, answer: asyncio.Future[bool], deadline: float) -> None:
        self.answer = answer
        self.deadline = deadline

    def settle(self, alive: bool) -> None:
        if not self.answer.done():
            self.answer.set_result(alive)

    def expired(self) -> None:
        self.settle(False)


class MuxSession(asyncio.Protocol):
    """One yamux session; attach it to a connected transport. A protocol and a carrier of streams, hence many methods.

    `accept` makes the protocol of a stream that the peer opens, as in `loop.create_server`; without it the peer may
    open none. `lost` is called once, when the transport is gone; `reason` says why, and `fault` whether the peer broke
    the protocol. A peer may have `max_streams` open, the excess is reset. `window` is how far the window of a stream
    may grow whose reader keeps up, within `budget`; never below 262144 bytes. With `frames` the peer may send no more
    than that until it is `welcome`.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        *,
        client: bool,
        accept: Factory | None = None,
        lost: Callable[[], None] | None = None,
        max_streams: int = 1000,
        window: int = INITIAL_WINDOW,
        budget: Budget | None = None,
        turns: Turns | None = None,
        frames: int | None = None,
        first: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.budget = budget or Budget()
        self.core = Session(
            client=client,
            max_streams=max_streams if accept else 0,
            clock=clock,
            budget=self.budget,
            frames=frames,
            first=first,
            trace=self._trace if logging.getLogger().isEnabledFor(logging.DEBUG) else None,
        )
        self.core.max_window = window
        self.reason = ""
        self.fault = False
        self.round_trip: float | None = None  # seconds, of the last ping
        self.received = self.sent = 0  # bytes, frames and all
        self.deadline = NEVER
        self._clock = clock
        self._deadlines = deadlines
        self._turns_to_read = turns or Turns()
        self._accept = accept
        self._lost = lost
        self._streams: dict[int, MuxStream] = {}
        self._lingering: list[set[int]] = [set(), set()]  # closed by us, by age in ping intervals; see expired()
        self._transport: asyncio.Transport | None = None
        self._turns: deque[MuxStream] = deque()  # of those that have something to send
        self._flushing = False
        self._paused = False  # the socket's buffer is full
        self._unread_control = 0  # bytes of control frames written while it is
        self._ping: tuple[int, float] | None = None  # value and time of the ping that waits for its answer
        self._heard = False  # anything since that ping
        self._trips: deque[float] = deque(maxlen=TRIPS)
        self._probes: set[_AwaitedPing] = set()
        self._gone = asyncio.Event()

    def __repr__(self) -> str:
        peer = self.get_extra_info("peername")
        state = "closed" if self.is_closing() else words_of(self.core.state)
        trip = "" if self.round_trip is None else f", round trip {self.round_trip * 1000:.0f} ms"
        return f"<MuxSession {peer[0] if peer else 'local'} {state}, {self.streams} streams{trip}>"

    @property
    def streams(self) -> int:
        """Streams that are open now, also on one side only."""
        return len(self.core.streams)

    def is_closing(self) -> bool:
        """Closed, by whichever side."""
        return self._transport is None or self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of the underlying transport."""
        return default if self._transport is None else self._transport.get_extra_info(name, default)

    def open(self, factory: Callable[[], P]) -> tuple[MuxStream, P]:
        """Open a stream and attach `factory()` to it. Raises TunnelAway when the session ended or ends."""
        if not self.core.can_open() and self.core.state == SessionState.RUNNING:
            self.close("all stream ids are used up")
        if self.is_closing() or not self.core.can_open():
            raise TunnelAway(f"the tunnel is closed: {self.reason or 'it ends'}")
        core = self.core.open()
        stream = self._streams[core.id] = MuxStream(self, core)
        self.schedule()
        protocol = factory()
        stream.opened(protocol)
        return stream, protocol

    def welcome(self, max_streams: int, window: int, budget: Budget | None = None) -> None:
        """Set what the peer may have after its login; with `budget`, within that one."""
        if budget is not None:
            kept = sum([stream.kept for stream in self._streams.values()])
            self.budget.kept -= kept
            budget.kept += kept
            self.budget = self.core.budget = budget
        self.core.trust()
        self.core.max_streams = max_streams
        self.core.max_window = window
        self.measure()

    def measure(self) -> None:
        """Send the next ping now, so that `round_trip` is known early."""
        if self._ping is None:
            self.expired()

    async def probe(self, seconds: float) -> bool:
        """Return whether the peer is alive: ask, and wait up to `seconds` for anything, as data may come first."""
        if self.is_closing():
            return False
        probe = _AwaitedPing(self.loop.create_future(), self._deadlines.now + seconds)
        self._probes.add(probe)
        self._deadlines.watch(probe)
        self.core.ping()
        self.schedule()
        try:
            return await probe.answer
        finally:
            self._deadlines.drop(probe)
            self._probes.discard(probe)

    def close(self, reason: str) -> None:
        """End the session: streams are lost, but what they have written is still sent."""
        if self._transport is not None and not self.is_closing():
            self.reason = self.reason or reason
            self._flush()
            self._transport.close()
            self._lose_streams()

    def abort(self, reason: str) -> None:
        """End the session at once."""
        if self._transport is not None:
            self.reason = self.reason or reason
            self._transport.abort()
            self._lose_streams()

    async def wait_closed(self) -> None:
        """Until the transport is gone."""
        await self._gone.wait()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's TLS transports do not derive from it
        self._transport.set_write_buffer_limits(high=SOCKET_BUFFER)
        self._deadlines.watch(self)
        self.deadline = self._deadlines.now + PING_INTERVAL

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self.received += len(data)
        if self._probes:
            for probe in self._probes:
                probe.settle(True)
        self._receive(data)
        size = SHARE if self.core.waiting else len(data)
        if size >= BIG and not self.is_closing() and self._turns_to_read.spend(self, size):
            self._transport.pause_reading()  # type: ignore[union-attr]  # it is not closing

    def turn_came(self) -> None:
        """As Reader of net/turns: go on with what is left, or read again."""
        self._receive(b"")
        if self.is_closing():
            return
        if self.core.waiting:
            self._turns_to_read.spend(self, SHARE)
        else:
            self._transport.resume_reading()  # type: ignore[union-attr]  # it is not closing

    def pause_writing(self) -> None:
        self._paused = True
        self._unread_control = 0

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def eof_received(self) -> None:
        self.reason = self.reason or "the peer closed the connection"

    def connection_lost(self, exc: Exception | None) -> None:
        self.reason = self.reason or (f"the connection was lost: {exc}" if exc else "the peer closed the connection")
        self._deadlines.drop(self)
        self._lose_streams()
        self._gone.set()
        for probe in self._probes:
            probe.settle(False)
        if self._lost is not None:
            self._lost()

    def _lose_streams(self) -> None:
        self._turns.clear()
        self.core.leave()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            if not stream.has_rest():
                stream.lost(ConnectionResetError(f"the tunnel is closed: {self.reason}"))

    # Deadlines

    def expired(self) -> None:
        """Ask an idle peer for a sign of life, give up a silent one; reset what the peer should have ended by now."""
        if self._ping is None:
            self._heard = False
            self._ping = (self.core.ping(), self._clock())
            self.schedule()
            self.deadline = self._deadlines.now + PING_LIMIT
            self._reset_lingering()
            self.core.forgive()
        elif self._heard:  # alive, but its answer is queued after data: a busy uplink
            self._heard = False
            self.deadline = self._deadlines.now + PING_LIMIT
        else:
            self.abort(f"no sign of life within {PING_LIMIT:g} s of a ping")

    def _reset_lingering(self) -> None:
        for number in self._lingering.pop(0):
            stream = self._streams.get(number)
            if stream is not None:
                stream.abort()
        self._lingering.append(set())

    # As Carrier of the streams

    def has_room(self) -> bool:
        """As Carrier."""
        return not (self._paused or self._turns) and self.core.queued < BATCH

    def wait_for_turn(self, stream: MuxStream) -> None:
        """As Carrier."""
        if not stream.waiting:
            stream.waiting = True
            self._turns.append(stream)
            self.schedule()

    def schedule(self) -> None:
        """As Carrier."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def linger(self, stream: MuxStream) -> None:
        """As Carrier. The peer has one to two ping intervals to close its side."""
        if stream.id in self.core.streams:
            self._lingering[-1].add(stream.id)

    def settle(self, stream: MuxStream) -> None:
        """As Carrier."""
        if stream.id not in self.core.streams:
            self._streams.pop(stream.id, None)
            for numbers in self._lingering:
                numbers.discard(stream.id)

    # Receiving

    def _receive(self, data: bytes) -> None:
        if self.is_closing():
            return
        core, streams = self.core, self._streams
        try:
            for event in core.receive(data, FRAMES):
                if type(event) is Frame:
                    stream = streams.get(event.stream)
                    if stream is not None:
                        stream.receive(event.payload)
                else:
                    self._handle(cast(MuxEvent, event))
        except PeerError as error:
            self.fault = True
            core.leave(GoAway.PROTOCOL_ERROR)
            self._flush()
            self.abort(str(error))
            return
        if core.has_to_send():
            self.schedule()

    def _handle(self, event: MuxEvent) -> None:
        kind = event.kind
        if kind is Happening.OPENED:
            self._opened(event.stream)
        elif kind is Happening.PONG:
            self._pong(event.value)
        elif kind is Happening.OVER:
            self.close(f"the peer ended the session with code {event.value}")
        elif (stream := self._streams.get(event.stream)) is not None:
            if kind is Happening.WINDOW_OPENED:
                stream.may_send()
                return
            self.settle(stream)
            if kind is Happening.ENDED:
                stream.ended()
            else:
                stream.lost(ConnectionResetError("the stream was reset"))

    def _opened(self, number: int) -> None:
        assert self._accept is not None
        stream = self._streams[number] = MuxStream(self, self.core.streams[number])
        stream.opened(self._accept())

    def _pong(self, value: int) -> None:
        if self._ping is not None and value == self._ping[0]:
            self.round_trip = self._clock() - self._ping[1]
            self._trips.append(self.round_trip)
            self.core.round_trip = min(self._trips)
            self._ping = None
            self.deadline = self._deadlines.now + PING_INTERVAL

    # Sending

    def _flush(self) -> None:
        """Write what has gathered, then a batch at a time what waits, for as long as the socket takes it."""
        self._flushing = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        full = self._paused
        while True:
            self._give_turns()
            batch = self.core.data_to_send()
            if not batch:
                return
            transport.write(batch)
            self.sent += len(batch)
            if full:  # control frames, then
                self._unread_control += len(batch)
                if self._unread_control > CONTROL_LIMIT:
                    self.abort(f"the peer does not read: {self._unread_control} bytes of control frames wait")
                return

    def _give_turns(self) -> None:
        while self._turns and not self._paused and self.core.queued < BATCH:
            stream = self._turns.popleft()
            stream.waiting = False
            if stream.take_turn():
                self.wait_for_turn(stream)

    def _trace(self, direction: str, frame: Frame) -> None:
        log.debug("yamux frame", peer=repr(self), direction=direction, frame=str(frame))
