"""One stream of a yamux session as a whole `asyncio.Transport`: protocols, HTTP clients and TLS run over it unchanged.

What a paused reader has not taken is kept here, bounded by the window that the stream was granted. What the peer or
the socket has no room for waits here as well; the writer is paused meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, Protocol, TypeVar, cast

from harp.errors import ProtocolError
from harp.wire.mux import MAX_FRAME, Session, SessionState, Stream, words_of
from harp.wire.windows import Budget

HIGH_WATER = 65536  # bytes a stream keeps for a peer that is slow before it pauses its writer
SMALL_PIECES = 4096  # bytes: smaller ones that are kept are joined, or each would cost more than its bytes
END = b""  # among the bytes that are kept: the peer's end

T = TypeVar("T")


class Use(IntEnum):
    """What the owner of the transport has asked for."""

    BOTH_WAYS = 0
    FINISHING = 1  # write_eof(): sends only what is already waiting
    CLOSING = 2  # close(): sends what waits, takes nothing any more
    LOST = 3  # connection_lost was called, or is on its way


class Wish(IntEnum):
    """What changes it."""

    WRITE_EOF = 0
    CLOSE = 1
    LOSE = 2


BOTH_WAYS, FINISHING, CLOSING, LOST = Use

USES: dict[Use, dict[Wish, Use]] = {
    BOTH_WAYS: {Wish.WRITE_EOF: FINISHING, Wish.CLOSE: CLOSING, Wish.LOSE: LOST},
    FINISHING: {Wish.CLOSE: CLOSING, Wish.LOSE: LOST},
    CLOSING: {Wish.LOSE: LOST},
    LOST: {},
}


class Carrier(Protocol):
    """The session that carries a stream."""

    loop: asyncio.AbstractEventLoop
    core: Session
    budget: Budget

    def has_room(self) -> bool:
        """Return whether a stream may send without waiting for its turn."""

    def wait_for_turn(self, stream: MuxStream) -> None:
        """Call `take_turn` when there is room."""

    def schedule(self) -> None:
        """Send what the core has for the peer, in this turn of the loop."""

    def linger(self, stream: MuxStream) -> None:
        """It was closed here; reset it when the peer does not end it in time."""

    def settle(self, stream: MuxStream) -> None:
        """Forget it if both sides have ended: what comes for its id from now on is dropped."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of the transport below."""


class MuxStream(asyncio.Transport):
    """A transport, so it has all of a transport's methods.

    Differs from a TCP transport in one thing: after close(), data that the peer still sends resets the stream.
    """

    __slots__ = (
        "__weakref__",
        "_carrier",
        "_core",
        "_high",
        "_kept",
        "_low",
        "_out",
        "_out_size",
        "_protocol",
        "_reading",
        "_stream",
        "_use",
        "_writing",
        "id",
        "waiting",
    )

    def __init__(self, carrier: Carrier, stream: Stream) -> None:
        super().__init__()
        self.id = stream.id
        self.waiting = False  # in the carrier's queue for a turn; kept by the carrier
        self._carrier = carrier
        self._core = carrier.core
        self._stream = stream
        self._protocol: asyncio.Protocol = asyncio.Protocol()  # replaced by set_protocol()
        self._use = BOTH_WAYS
        self._kept: deque[bytes] = deque()  # received while reading was paused
        self._out: deque[bytes | memoryview] = deque()  # waits for window or its turn
        self._out_size = 0
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._reading = True
        self._writing = True  # False: the protocol has to pause

    def __repr__(self) -> str:
        state = words_of(self._stream.state if self._use == BOTH_WAYS else self._use)
        return f"<MuxStream {self.id} {state}, window {self._stream.window.left}, waits: {self._waits_for()}>"

    def _waits_for(self) -> str:
        if self._kept:
            return "reader"
        if self._out:
            return "socket" if self._stream.sendable else "peer"
        return "nothing"

    # What asyncio expects of a transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the session's `peername` and `sockname`; nothing else."""
        return self._carrier.get_extra_info(name, default) if name in ("peername", "sockname") else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)  # a BufferedProtocol is not served

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._use >= CLOSING

    def is_reading(self) -> bool:
        return self._reading and self._use < CLOSING

    def pause_reading(self) -> None:
        self._reading = False
        self._stream.window.strain()

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._carrier.loop.call_soon(self._deliver_kept)

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
        if self._use:
            if self._use == FINISHING:
                raise RuntimeError("write() after write_eof()")
            return
        if not data:
            return
        if type(data) is not bytes:
            data = bytes(data)
        size = len(data)
        carrier = self._carrier
        if size <= self._stream.sendable and not self._out and carrier.has_room():
            self._core.send(self._stream, data)
            carrier.schedule()
            return
        self._out.append(data)
        self._out_size += size
        if self._stream.sendable:
            carrier.wait_for_turn(self)
        self._pause_writer()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if self._use == BOTH_WAYS:
            self._wish(Wish.WRITE_EOF)
            self._finish()

    def close(self) -> None:
        if self._use < CLOSING:
            self._wish(Wish.CLOSE)
            self._drop_kept()
            self._finish()
            self._carrier.linger(self)

    def abort(self) -> None:
        self._reset(None)

    # What the carrier calls

    def opened(self, protocol: asyncio.BaseProtocol) -> None:
        """Attach the first protocol."""
        self.set_protocol(protocol)
        self._call(self._protocol.connection_made, self)

    def receive(self, data: bytes) -> None:
        """The peer has sent this."""
        if self._use >= CLOSING:
            self._reset(None)
        elif self._reading and not self._kept:
            try:
                self._protocol.data_received(data)
            except Exception as error:
                self._failed(error)
            window = self._stream.window
            if window.left * 2 <= window.size:
                self._reopen_window()
        else:
            self._keep(data)

    def may_send(self) -> None:
        """The peer has granted more."""
        if self._out:
            self._carrier.wait_for_turn(self)

    def ended(self) -> None:
        """The peer has finished sending."""
        if self._use < CLOSING:
            if self._reading and not self._kept:
                self._deliver_end()
            else:
                self._keep(END)

    def has_rest(self) -> bool:
        """Return whether the peer has sent everything and a reader has not taken all: no session is needed then."""
        return bool(self._kept) and self._kept[-1] == END

    def take_turn(self) -> bool:
        """Give the session one DATA frame of what waits; return False if nothing more can be sent now."""
        budget = min(MAX_FRAME, self._stream.sendable)
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
        self._out_size -= size
        if size:
            self._core.send(self._stream, b"".join(parts))
        if self._use and not self._out:
            self._finish()
        elif not self._writing and self._out_size <= self._low and self._use < CLOSING:
            self._writing = True
            self._call(self._protocol.resume_writing)
        return bool(self._out and self._stream.sendable)

    def lost(self, error: Exception | None) -> None:
        """No frame of this stream will be sent or received any more."""
        self._out.clear()
        self._out_size = 0
        self._drop_kept()
        if self._use != LOST:
            self._wish(Wish.LOSE)
            self._carrier.loop.call_soon(self._protocol_lost, error)

    # Inside

    def _wish(self, wish: Wish) -> None:
        after = USES[self._use].get(wish)
        if after is None:
            raise ProtocolError(f"{words_of(wish)} for a stream that is {words_of(self._use)}")
        self._use = after

    def _keep(self, data: bytes) -> None:
        kept = self._kept
        if data and kept and len(kept[-1]) + len(data) <= SMALL_PIECES:
            kept[-1] += data
        else:
            kept.append(data)
        self._carrier.budget.kept += len(data)

    @property
    def kept(self) -> int:
        """Bytes that have been received and not been delivered."""
        return sum(map(len, self._kept))

    def _drop_kept(self) -> None:
        self._carrier.budget.kept -= self.kept
        self._kept.clear()

    def _reopen_window(self) -> None:
        window = self._stream.window
        if window.left * 2 <= window.size and self._reading and self._use < CLOSING and not self._kept:
            self._core.reopen_window(self._stream)
            self._carrier.schedule()

    def _deliver_kept(self) -> None:
        """Hand on what is kept, piece by piece: the reader may pause again at any of them."""
        kept = self._kept
        while kept and self._reading and self._use < CLOSING:
            data = kept.popleft()
            self._carrier.budget.kept -= len(data)
            if data == END:
                self._deliver_end()
                return
            self._call(self._protocol.data_received, data)
        self._reopen_window()

    def _deliver_end(self) -> None:
        if not self._call(self._protocol.eof_received) or self._core.state == SessionState.OVER:
            self.close()  # in the second case there is nobody to write to

    def _call(self, callback: Callable[..., T], *arguments: Any) -> T | None:
        """Call the protocol. As with every asyncio transport an exception there ends the stream, not the session."""
        try:
            return callback(*arguments)
        except Exception as error:
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        context = {"message": "a protocol failed", "exception": error, "transport": self, "protocol": self._protocol}
        self._carrier.loop.call_exception_handler(context)
        self._reset(error)

    def _pause_writer(self) -> None:
        if self._writing and self._out_size > self._high:
            self._writing = False
            self._call(self._protocol.pause_writing)

    def _finish(self) -> None:
        """Send FIN when nothing waits before it; then a closed stream is done for its protocol."""
        if self._out or self._use == LOST:
            return
        if self._stream.may_send():
            self._core.end(self._stream)
            self._carrier.settle(self)
            self._carrier.schedule()
        if self._use == CLOSING:
            self.lost(None)

    def _reset(self, error: Exception | None) -> None:
        self._core.reset(self._stream)
        self._carrier.settle(self)
        self._carrier.schedule()
        self.lost(error)

    def _protocol_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)
