"""A yamux session under test over a socket in memory, and what its peer sees of it."""

from __future__ import annotations

from harp.tunnel.mux import MuxSession
from harp.tunnel.stream import MuxStream
from harp.wire import yamux
from harp.wire.yamux import ACK, DATA, FIN, INITIAL_WINDOW, SYN, WINDOW_UPDATE, Frame, FrameParser
from tests.fakes.clock import Clock
from tests.fakes.transport import HARP, MemoryTransport, Recorder
from tests.fakes.waiting import settled


class Peer:
    """A session under test, and the frames that it has sent."""

    def __init__(
        self,
        clock: Clock,
        *,
        client: bool = False,
        window: int = INITIAL_WINDOW,
        streams: int = 8,
        first: int | None = None,
    ) -> None:
        self.accepted: list[Recorder] = []
        self.half_close = False
        self.lost = 0
        self.session = MuxSession(
            clock.deadlines,
            client=client,
            accept=self._accept,
            lost=self._count_loss,
            window=window,
            max_streams=streams,
            first=first,
            clock=lambda: clock.now,
        )
        self.socket = MemoryTransport(("192.0.2.7", 50000), sockname=HARP, sslcontext=object())
        self.session.connection_made(self.socket)

    def _accept(self) -> Recorder:
        recorder = Recorder(half_close=self.half_close)
        self.accepted.append(recorder)
        return recorder

    def _count_loss(self) -> None:
        self.lost += 1

    def say(self, *frames: bytes) -> None:
        self.session.data_received(b"".join(frames))

    async def heard(self) -> list[Frame]:
        """What the session has sent since the last call, once it has nothing more to send."""
        await settled()
        return FrameParser().feed(self.socket.take())

    async def answer_a_ping(self) -> None:
        """The session knows the round trip then."""
        self.session.measure()
        (ping,) = await self.heard()
        self.say(yamux.ping(ping.length, reply=True))

    async def opened(self, number: int = 1, increment: int = 0) -> tuple[MuxStream, Recorder]:
        """A stream that the peer has opened, its ACK consumed."""
        self.say(yamux.window_update(number, increment, SYN))
        assert await self.heard() == [Frame(WINDOW_UPDATE, ACK, number, 0)]
        stream = self.accepted[-1].transport
        assert isinstance(stream, MuxStream)
        return stream, self.accepted[-1]


def data(number: int, payload: bytes, flags: int = 0) -> bytes:
    return yamux.data_header(number, len(payload), flags) + payload


def payload_of(frames: list[Frame]) -> bytes:
    return b"".join(frame.payload for frame in frames if frame.kind == DATA)


def end(number: int) -> bytes:
    return yamux.window_update(number, 0, FIN)
