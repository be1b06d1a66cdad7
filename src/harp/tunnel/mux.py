"""A yamux session over any asyncio transport, for both ends of a tunnel (F 1.3, F 1.4).

Each stream is a whole `asyncio.Transport`: protocols, HTTP clients and TLS run over it unchanged.

* The socket is always read: a Go peer gives up a session whose frames are not taken for 10 s. What a paused reader has
  not taken is kept, bounded by the window that the stream was granted, and no more is granted meanwhile.
* All frames of one loop iteration leave in one write, since each write is a TLS record: control frames first, then
  data, at most one frame from each waiting stream in turn.
* One deadline per session serves pings, a dead peer and streams whose peer never ends them; streams have no timer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from harp.errors import PeerError, TunnelAway
from harp.net.deadlines import NEVER, Deadlines
from harp.wire import yamux
from harp.wire.yamux import ACK, DATA, FIN, INITIAL_WINDOW, PING, RST, SYN, WINDOW_UPDATE, Frame, FrameParser

PING_INTERVAL = 25.0  # seconds; with PING_LIMIT a dead peer is noticed within 40 s, ticks included
PING_LIMIT = 10.0  # seconds of complete silence after a ping
MAX_FRAME = 65536  # bytes of payload in a frame of ours
BATCH = 131072  # bytes of data gathered for one write to the socket
SOCKET_BUFFER = 262144  # bytes waiting for the socket before streams have to wait
MAX_ID = 0xFFFFFFFF
CONTROL_LIMIT = 65536  # bytes of control frames for a peer that does not read them
HIGH_WATER = 65536  # bytes a stream keeps for a peer that is slow before it pauses its writer

Factory = Callable[[], asyncio.BaseProtocol]
P = TypeVar("P", bound=asyncio.BaseProtocol)
T = TypeVar("T")


class MuxStream(asyncio.Transport):
    """One stream of a session.

    Differs from a TCP transport in one thing: after close(), data that the peer still sends resets the stream.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_end_delivered",
        "_fin_received",
        "_fin_sent",
        "_finishing",
        "_gone",
        "_grantable",
        "_high",
        "_kept",
        "_low",
        "_out",
        "_out_size",
        "_protocol",
        "_reading",
        "_receivable",
        "_sendable",
        "_session",
        "_writing",
        "id",
        "waiting",
    )

    def __init__(self, session: MuxSession, number: int) -> None:
        super().__init__()
        self.id = number
        self._session = session
        self._protocol: asyncio.Protocol = asyncio.Protocol()  # replaced by set_protocol()
        self._receivable = INITIAL_WINDOW  # bytes the peer may still send
        self._grantable = INITIAL_WINDOW  # the window to come back to when everything was read
        self._kept = bytearray()  # received while reading was paused
        self._reading = True
        self._fin_received = False
        self._end_delivered = False
        self._sendable = INITIAL_WINDOW  # bytes we may still send
        self._out: deque[bytes | memoryview] = deque()  # waits for window or its turn
        self._out_size = 0
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._writing = True  # False: the protocol was told to pause
        self.waiting = False  # in the session's queue for a turn; kept by the session
        self._finishing = False  # FIN goes out behind `_out`
        self._fin_sent = False
        self._closing = False
        self._gone = False  # connection_lost was called or is on its way

    # What asyncio expects of a transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The session's `peername` and `sockname`; nothing else."""
        return self._session.get_extra_info(name, default) if name in ("peername", "sockname") else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)  # a BufferedProtocol is not served

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False
        self._grantable = INITIAL_WINDOW

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._session.loop.call_soon(self._deliver_kept)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be >= low ({low}) must be >= 0")
        self._high, self._low = high, low
        self._pause_writer()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return self._out_size

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._finishing and not self._closing:
            raise RuntimeError("write() after write_eof()")
        if self._closing or not data:
            return
        if type(data) is not bytes:
            data = bytes(data)
        size = len(data)
        session = self._session
        if size <= self._sendable and not self._out and session.has_room():
            self._sendable -= size
            session.send_data(self.id, data)
            return
        self._out.append(data)
        self._out_size += size
        if self._sendable:
            session.wait_for_turn(self)
        self._pause_writer()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if not self._finishing:
            self._finishing = True
            self._finish()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._kept.clear()
        self._finishing = True
        self._finish()
        self._session.linger(self)

    def abort(self) -> None:
        self._reset(None)

    # What the session calls

    def opened(self, protocol: asyncio.BaseProtocol) -> None:
        """Attach the first protocol."""
        self.set_protocol(protocol)
        self._call(self._protocol.connection_made, self)

    def receive(self, frame: Frame) -> None:
        """Take a DATA frame, or a part of one. Raises PeerError when it is more than was granted (F 1.4)."""
        if frame.length > self._receivable:
            raise PeerError(f"yamux: {frame.length} bytes of data for a window of {self._receivable}")
        self._receivable -= frame.length
        if not frame.payload:
            return
        if self._fin_received:
            raise PeerError("yamux: data behind the end of a stream")
        if self._closing:
            self._reset(None)
        elif self._reading and not self._kept:
            self._deliver(frame.payload)
        else:
            self._kept += frame.payload

    def may_send(self, increment: int) -> None:
        """The peer grants `increment` more bytes."""
        self._sendable += increment
        if self._out and self._sendable:
            self._session.wait_for_turn(self)

    def finished(self) -> None:
        """The peer sends no more. Raises PeerError when it said so before."""
        if self._fin_received:
            raise PeerError("yamux: a stream ended twice")
        self._fin_received = True
        if self._fin_sent:
            self._session.forget(self)
        if self._reading and not self._kept and not self._closing:
            self._deliver_end()

    def has_rest(self) -> bool:
        """The peer has sent everything, and a slow reader has not taken all of it: needs no session any more."""
        return self._fin_received and bool(self._kept)

    def take_turn(self) -> bool:
        """Give the session one DATA frame of what waits; False when nothing more can be sent now."""
        budget = min(MAX_FRAME, self._sendable)
        parts: list[bytes | memoryview] = []
        size = 0
        while self._out and size < budget:
            part = self._out.popleft()
            room = budget - size
            if len(part) > room:
                view = memoryview(part)
                self._out.appendleft(view[room:])
                part = view[:room]
            parts.append(part)
            size += len(part)
        self._sendable -= size
        self._out_size -= size
        if size:
            self._session.send_data(self.id, b"".join(parts))
        if self._finishing and not self._out:
            self._finish()
        elif not self._writing and self._out_size <= self._low and not self._closing:
            self._writing = True
            self._call(self._protocol.resume_writing)
        return bool(self._out and self._sendable)

    def lost(self, error: Exception | None) -> None:
        """No frame of this stream will be sent or received any more."""
        self._closing = True
        self._out.clear()
        self._out_size = 0
        self._kept.clear()
        if not self._gone:
            self._gone = True
            self._session.loop.call_soon(self._protocol_lost, error)

    # Inside

    def _deliver(self, data: bytes) -> None:
        self._call(self._protocol.data_received, data)
        self._grant()

    def _grant(self) -> None:
        """If everything was read and half of the window is used up, open it again."""
        if not self._reading or self._fin_received or self._closing:
            return
        increment = self._grantable - self._receivable
        if increment * 2 >= self._grantable:
            self._receivable += increment
            self._session.send_control(yamux.window_update(self.id, increment))
            self._grantable = self._session.window  # a reader that keeps up gets the large one

    def _deliver_kept(self) -> None:
        if not self._reading or self._closing:
            return
        data, self._kept = bytes(self._kept), bytearray()
        if data:
            self._deliver(data)
        else:
            self._grant()
        if self._fin_received and self._reading and not self._closing:
            self._deliver_end()

    def _deliver_end(self) -> None:
        if not self._end_delivered:
            self._end_delivered = True
            if not self._call(self._protocol.eof_received):
                self.close()

    def _call(self, callback: Callable[..., T], *arguments: Any) -> T | None:
        """Call the protocol. As with every asyncio transport an exception there ends the stream, not the session."""
        try:
            return callback(*arguments)
        except Exception as error:
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        context = {"message": "a protocol failed", "exception": error, "transport": self, "protocol": self._protocol}
        self._session.loop.call_exception_handler(context)
        self._reset(error)

    def _pause_writer(self) -> None:
        if self._writing and self._out_size > self._high:
            self._writing = False
            self._call(self._protocol.pause_writing)

    def _finish(self) -> None:
        """Send FIN when nothing waits before it; then a closed stream is done for its protocol."""
        if self._out or self._gone:
            return
        if not self._fin_sent:
            self._fin_sent = True
            self._session.send_end(self.id)
            if self._fin_received:
                self._session.forget(self)
        if self._closing:
            self.lost(None)

    def _reset(self, error: Exception | None) -> None:
        self._session.reset(self)
        self.lost(error)

    def _protocol_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)


class _Probe:
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
    """One yamux session; attach it to a connected transport.

    `accept` makes the protocol of a stream that the peer opens, as in `loop.create_server`; without it the peer may
    open none. `lost` is called once, when the transport is gone; `reason` says why. A peer may have `max_streams` open,
    the excess is reset. `window` is what a stream whose reader keeps up may carry unread; never below 262144 bytes.
    `streams`, `max_streams` and `window` may be read and set at any time.
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
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.window = window
        self.max_streams = max_streams
        self.reason = ""
        self.round_trip: float | None = None  # seconds, of the last ping
        self.deadline = NEVER
        self._deadlines = deadlines
        self._accept = accept
        self._lost = lost
        self._next_id = 1 if client else 2
        self._peer_parity = 0 if client else 1  # of the ids that the peer may open
        self._parser = FrameParser()
        self._streams: dict[int, MuxStream] = {}
        self._lingering: list[set[int]] = [set(), set()]  # closed by us, by age in ping intervals; see expired()
        self._refusing = False  # the peer takes no new streams
        self._transport: asyncio.Transport | None = None
        self._control: list[bytes] = []
        self._data: list[bytes] = []
        self._data_size = 0
        self._turns: deque[MuxStream] = deque()
        self._flushing = False
        self._paused = False  # the socket's buffer is full
        self._unread_control = 0  # bytes of control frames written while it is
        self._pings = 0
        self._ping: tuple[int, float] | None = None  # value and time of the ping that waits for its answer
        self._heard = False  # anything since that ping
        self._probes: set[_Probe] = set()
        self._gone = asyncio.Event()

    @property
    def streams(self) -> int:
        """Streams that are open now, also on one side only."""
        return len(self._streams)

    def is_closing(self) -> bool:
        """Closed, by whichever side."""
        return self._transport is None or self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of the underlying transport."""
        return default if self._transport is None else self._transport.get_extra_info(name, default)

    def open(self, factory: Callable[[], P]) -> tuple[MuxStream, P]:
        """Open a stream and attach `factory()` to it. Raises TunnelAway when the session ended or ends."""
        if self.is_closing() or self._refusing:
            raise TunnelAway(f"the tunnel is closed: {self.reason or 'it ends'}")
        if self._next_id > MAX_ID:
            self.close("all stream ids are used up")
            raise TunnelAway(f"the tunnel is closed: {self.reason}")
        stream = MuxStream(self, self._next_id)
        self._next_id += 2
        self._streams[stream.id] = stream
        self.send_control(yamux.window_update(stream.id, 0, SYN))
        protocol = factory()
        stream.opened(protocol)
        return stream, protocol

    def measure(self) -> None:
        """Send the next ping now, so that `round_trip` is known early."""
        if self._ping is None:
            self.expired()

    async def probe(self, seconds: float) -> bool:
        """Is the peer alive? Asks, and waits up to `seconds` for anything: the answer may stand behind data."""
        if self.is_closing():
            return False
        probe = _Probe(self.loop.create_future(), self._deadlines.now + seconds)
        self._probes.add(probe)
        self._deadlines.watch(probe)
        self._send_ping()
        try:
            return await probe.answer
        finally:
            self._deadlines.drop(probe)
            self._probes.discard(probe)

    def close(self, reason: str) -> None:
        """End the session: streams are lost, but what they have written is sent."""
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
        if self.is_closing():
            return
        for probe in self._probes:
            probe.settle(True)
        try:
            for frame in self._parser.feed(data):
                if frame.kind <= WINDOW_UPDATE:
                    self._stream_frame(frame)
                elif frame.kind == PING:
                    self._ping_frame(frame)
                else:
                    self._go_away_frame(frame)
        except PeerError as error:
            self.send_control(yamux.go_away(yamux.GoAway.PROTOCOL_ERROR))
            self._flush()
            self.abort(str(error))

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
        self._control.clear()
        self._data.clear()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            if not stream.has_rest():
                stream.lost(ConnectionResetError(f"the tunnel is closed: {self.reason}"))

    # Deadlines

    def expired(self) -> None:
        """Ask an idle peer for a sign of life, give up a silent one; reset what the peer should have ended by now."""
        if self._ping is None:
            self._heard = False
            self._ping = (self._send_ping(), self.loop.time())
            self.deadline = self._deadlines.now + PING_LIMIT
            self._reset_lingering()
        elif self._heard:  # alive, but its answer stands behind data: a busy uplink
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

    # What streams call

    def has_room(self) -> bool:
        """May a stream send without waiting for its turn?"""
        return not (self._paused or self._turns) and self._data_size < BATCH

    def wait_for_turn(self, stream: MuxStream) -> None:
        """Let `stream` send when its turn comes."""
        if not stream.waiting:
            stream.waiting = True
            self._turns.append(stream)
            self._schedule()

    def send_data(self, number: int, data: bytes) -> None:
        """Put the payload of DATA frames into the batch. The caller has taken it from the stream's window."""
        size = len(data)
        self._data_size += size
        if size <= MAX_FRAME:
            self._data += (yamux.data_header(number, size), data)
        else:
            for at in range(0, size, MAX_FRAME):
                part = data[at : at + MAX_FRAME]
                self._data += (yamux.data_header(number, len(part)), part)
        self._schedule()

    def send_end(self, number: int) -> None:
        """FIN, behind the data of the stream."""
        self._send_frame(self._data, yamux.window_update(number, 0, FIN))

    def send_control(self, frame: bytes) -> None:
        """A frame that goes ahead of all data."""
        self._send_frame(self._control, frame)

    def linger(self, stream: MuxStream) -> None:
        """`stream` was closed here; its peer has one to two ping intervals to close its side."""
        if stream.id in self._streams:
            self._lingering[-1].add(stream.id)

    def forget(self, stream: MuxStream) -> None:
        """Both sides have ended: what comes for its id from now on is dropped."""
        self._streams.pop(stream.id, None)
        for numbers in self._lingering:
            numbers.discard(stream.id)

    def reset(self, stream: MuxStream) -> None:
        """RST, behind what was sent, and forget; nothing when both sides have ended already."""
        if self._streams.get(stream.id) is stream:
            self._send_frame(self._data, yamux.window_update(stream.id, 0, RST))
            self.forget(stream)

    # Receiving

    def _stream_frame(self, frame: Frame) -> None:
        if frame.flags & SYN:
            self._open_frame(frame)
        stream = self._streams.get(frame.stream)
        if stream is None:
            return  # late frames of a stream that is gone (F 1.4, rule 6)
        if frame.flags & RST:
            self.forget(stream)
            stream.lost(ConnectionResetError("the stream was reset"))
            return
        if frame.kind == DATA:
            stream.receive(frame)
        else:
            stream.may_send(frame.length)
        if frame.flags & FIN and self._streams.get(frame.stream) is stream:
            stream.finished()

    def _open_frame(self, frame: Frame) -> None:
        number = frame.stream
        if number in self._streams or number % 2 != self._peer_parity or not number:
            raise PeerError(f"yamux: stream {number} cannot be opened")
        if self._accept is None or len(self._streams) >= self.max_streams:
            self.send_control(yamux.window_update(number, 0, RST))
            return
        stream = self._streams[number] = MuxStream(self, number)
        self.send_control(yamux.window_update(number, 0, ACK))
        stream.opened(self._accept())

    def _ping_frame(self, frame: Frame) -> None:
        if frame.flags & SYN:
            self.send_control(yamux.ping(frame.length, reply=True))
            return
        if self._ping is not None and frame.length == self._ping[0]:
            self.round_trip = self.loop.time() - self._ping[1]
            self._ping = None
            self.deadline = self._deadlines.now + PING_INTERVAL

    def _go_away_frame(self, frame: Frame) -> None:
        if frame.length:
            self.close(f"the peer ended the session with code {frame.length}")
        else:
            self._refusing = True

    # Sending

    def _send_frame(self, queue: list[bytes], frame: bytes) -> None:
        """Queue a frame without payload. A peer that provokes many and reads none is dropped."""
        queue.append(frame)
        if self._paused:
            self._unread_control += len(frame)
            if self._unread_control > CONTROL_LIMIT:
                self.abort(f"the peer does not read: {self._unread_control} bytes of control frames wait")
        self._schedule()

    def _send_ping(self) -> int:
        value = self._pings
        self._pings = (value + 1) & 0xFFFFFFFF
        self.send_control(yamux.ping(value))
        return value

    def _schedule(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what has gathered, then a batch at a time what waits, for as long as the socket takes it."""
        self._flushing = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        while True:
            self._give_turns()
            if not (self._control or self._data):
                return
            batch = b"".join(self._control + self._data)
            self._control.clear()
            self._data.clear()
            self._data_size = 0
            transport.write(batch)

    def _give_turns(self) -> None:
        while self._turns and not self._paused and self._data_size < BATCH:
            stream = self._turns.popleft()
            stream.waiting = False
            if stream.take_turn():
                self.wait_for_turn(stream)
