"""A link: one yamux session with another member. What its messages mean is in wire/member and up to the host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import structlog

from harp.errors import PeerError, TunnelAway
from harp.net.deadlines import NEVER, Deadlines
from harp.net.ports import ProtocolFactory
from harp.net.turns import Turns
from harp.tunnel.mux import MuxSession
from harp.wire.member import Accepted, Ask, Declined, Greeting, LinkStream, Talk, Told, ToPort, WorkFor, packed
from harp.wire.windows import Budget

ANSWER_LIMIT = 12.0  # seconds; the other side waits up to 10 for its tunnel's client
OPENING_LIMIT = 10.0  # seconds for the first message of a stream
UNHEARD_LIMIT = 4 << 20  # bytes of news that wait for a member that does not read
LONGEST_ANSWER = 64 << 20  # bytes
STREAMS = 100_000  # that the other side may have open: limits are applied where clients and tunnels come in

log = structlog.get_logger()

Connected = tuple[asyncio.Transport, asyncio.BaseProtocol]
Request = ToPort | WorkFor | Ask


class LinkHost(Protocol):
    """Who has the links."""

    name: str
    boot: str
    fresh: bool
    deadlines: Deadlines
    turns: Turns
    budget: Budget
    window: int

    def began(self, link: Link, talk: Talk) -> None:
        """The other side has begun to talk."""

    def heard(self, link: Link, message: Told) -> None:
        """It says something."""

    def asked(self, link: Link, request: Request, stream: AskedFor) -> None:
        """It has opened a stream, and waits for `stream.accept` or `stream.refuse`."""

    def lost(self, link: Link) -> None:
        """The link is gone."""


class Link:
    """A member that we are linked with. `first` is the side with the odd stream ids, `serial` for whoever made it.

    While it is `stuck`, for the reason that this is, no stream is opened.
    """

    def __init__(self, member: str, host: LinkHost, serial: int, *, first: bool, boot: str = "") -> None:
        self.member = member
        self.serial = serial
        self.host = host
        self.boot = boot  # of the process there, as Greeting has it
        self.stuck = ""
        self._joining: set[_Joining] = set()
        self.mux = MuxSession(
            host.deadlines,
            client=first,
            accept=lambda: AskedFor(self),
            lost=lambda: host.lost(self),
            max_streams=STREAMS,
            window=host.window,
            budget=host.budget,
            turns=host.turns,
        )
        self._talk: asyncio.Transport | None = None
        self._early: list[Told] = []  # the other side may have begun to talk before we do

    def __repr__(self) -> str:
        return f"<Link with {self.member}, {self.mux!r}>"

    def begin(self) -> None:
        """The session has its transport: introduce ourselves."""
        self.mux.welcome(STREAMS, self.host.window)
        transport, talking = self.mux.open(_Talking)
        transport.write(talking.stream.open(Talk(self.host.name, self.host.fresh, self.host.boot)))
        self._talk = transport
        early, self._early = self._early, []
        for message in early:
            self.tell(message)

    def tell(self, message: Told) -> None:
        """Send news. A member that does not read them is not linked any more."""
        talk = self._talk
        if talk is None:
            self._early.append(message)
            return
        if talk.is_closing():
            return
        talk.write(packed(message))
        if talk.get_write_buffer_size() > UNHEARD_LIMIT:
            self.abort(f"{UNHEARD_LIMIT} bytes of news wait for it")

    async def join(self, request: Request, factory: ProtocolFactory) -> Connected:
        """Open a stream for `request` and attach `factory()` to it. Raises TunnelAway with the other side's reason.

        As `loop.create_connection`: connection_made has been called on return.
        """
        if self.stuck:
            raise TunnelAway(self.stuck)
        _, asking = self.mux.open(lambda: _Joining(self, request, factory))
        self._joining.add(asking)
        try:
            return await asking.done
        except asyncio.CancelledError:
            asking.give_up()
            raise
        finally:
            self._joining.discard(asking)

    def suspend(self, reason: str) -> None:
        """Open no streams until `resume`; those that wait for an answer are given up."""
        self.stuck = reason
        for asking in list(self._joining):
            asking.fail(reason)

    def resume(self) -> None:
        """Open streams again."""
        self.stuck = ""

    async def ask(self, what: str, about: str = "") -> bytes:
        """Return the whole answer to a question. Raises TunnelAway."""
        _, protocol = await self.join(Ask(what, about), _Collecting)
        collecting = cast(_Collecting, protocol)
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                return await collecting.whole
        except TimeoutError:
            raise TunnelAway(f"member {self.member} does not finish its answer") from None
        finally:
            collecting.close()

    def abort(self, reason: str) -> None:
        """End the link at once."""
        self.mux.abort(reason)

    def close(self, reason: str) -> None:
        """End the link; what was written is sent."""
        self.mux.close(reason)


class AskedFor(asyncio.Protocol):
    """A stream that the other side has opened."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.stream = LinkStream(opener=False)
        self.transport: asyncio.Transport
        self.deadline = NEVER

    def accept(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Grant the request, and give the stream to `protocol`, which is not told of its connection."""
        transport = self.transport
        transport.write(self.stream.accept())
        transport.set_protocol(protocol)
        transport.resume_reading()
        return transport

    def refuse(self, reason: str) -> None:
        """Do not; fine when it is lost already."""
        if not self.transport.is_closing():
            self.transport.write(self.stream.refuse(reason))
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        deadlines = self.link.host.deadlines
        self.deadline = deadlines.now + OPENING_LIMIT
        deadlines.watch(self)

    def data_received(self, data: bytes) -> None:
        link = self.link
        self.stream.feed(data)
        try:
            while (message := self.stream.next()) is not None:
                if isinstance(message, Talk):
                    self._heard()
                    link.host.began(link, message)
                elif isinstance(message, (ToPort, WorkFor, Ask)):
                    self._heard()
                    self.transport.pause_reading()
                    link.host.asked(link, message, self)
                    return
                elif isinstance(message, Greeting):
                    link.abort("link: a greeting inside a link")
                    return
                else:
                    link.host.heard(link, cast(Told, message))
        except PeerError as error:
            link.abort(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._heard()
        self.stream.end()

    def expired(self) -> None:
        """Nothing came."""
        self._heard()
        self.transport.abort()

    def _heard(self) -> None:
        self.deadline = NEVER
        self.link.host.deadlines.drop(self)


class _Talking(asyncio.Protocol):
    """The stream on which we talk; nobody answers there. When it is lost, so is the link."""

    def __init__(self) -> None:
        self.stream = LinkStream(opener=True)
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.abort()


class _Joining(asyncio.Protocol):
    """A stream of ours until it is accepted. Then it is its user's, without a turn of the loop between."""

    def __init__(self, link: Link, request: Request, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self.done: asyncio.Future[Connected] = asyncio.get_running_loop().create_future()
        self.deadline = NEVER
        self._link = link
        self._request = request
        self._factory = factory
        self._stream = LinkStream(opener=True)
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._stream.open(self._request))
        deadlines = self._link.host.deadlines
        self.deadline = deadlines.now + ANSWER_LIMIT
        deadlines.watch(self)

    def data_received(self, data: bytes) -> None:
        self._stream.feed(data)
        try:
            answer = self._stream.next()
        except PeerError as error:
            self._link.abort(str(error))
            return
        if isinstance(answer, Declined):
            self._fail(answer.reason)
            self._transport.close()
        elif isinstance(answer, Accepted):
            self._accepted()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the link with member {self._link.member} is gone" if exc else "the stream was closed")

    def expired(self) -> None:
        """No answer in time."""
        self.fail(f"member {self._link.member} gave no answer within {ANSWER_LIMIT:g} s")

    def fail(self, reason: str) -> None:
        """Wait no longer."""
        self._fail(reason)
        self._transport.abort()

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._settled()
        if self.done.cancelled():
            self._transport.abort()
        elif self.done.exception() is None:
            self.done.result()[0].abort()  # it came in the same moment

    def _accepted(self) -> None:
        self._settled()
        transport = self._transport
        if self.done.done():
            transport.abort()
            return
        protocol = cast(asyncio.Protocol, self._factory())
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self.done.set_result((transport, protocol))
        if rest := self._stream.rest():
            protocol.data_received(rest)

    def _fail(self, reason: str) -> None:
        self._settled()
        self._stream.end()
        if not self.done.done():
            self.done.set_exception(TunnelAway(reason))

    def _settled(self) -> None:
        self.deadline = NEVER
        self._link.host.deadlines.drop(self)


class _Collecting(asyncio.Protocol):
    """Takes an answer until its end."""

    def __init__(self) -> None:
        self.whole: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._parts = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parts += data
        if len(self._parts) > LONGEST_ANSWER:
            self._transport.abort()

    def eof_received(self) -> None:
        if not self.whole.done():
            self.whole.set_result(bytes(self._parts))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.whole.done():
            self.whole.set_exception(TunnelAway("the answer was cut short"))

    def close(self) -> None:
        self._transport.close()
