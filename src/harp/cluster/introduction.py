"""The connection of two replicas until both know whom they talk with: TLS, then `Greeting` and its answer."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from harp.errors import HarpError, PeerError
from harp.net.member_tls import MemberTls, is_member, shown
from harp.wire.member import Accepted, Declined, Greeting, LinkStream

CLOSED = "it closed the connection"
ANSWER_LIMIT = 8.0  # seconds for the other side's part: it may look for us in its list first


class NotLinked(HarpError):
    """There is no link with this one; the text says why, and `fix` what to do about it."""

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix


class Introduction(asyncio.Protocol):
    """One side of it, from the end of the TLS handshake on."""

    def __init__(self, *, dialled_here: bool) -> None:
        self.stream = LinkStream(opener=dialled_here)
        self.transport: asyncio.Transport
        self._said: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def greet(self, hello: Greeting) -> bytes:
        """Say who we are. Returns what came after the other side's consent; raises NotLinked with its reason."""
        self.transport.write(self.stream.open(hello))
        answer = await self._heard()
        if isinstance(answer, Declined):
            raise NotLinked(answer.reason)
        if not isinstance(answer, Accepted):
            raise NotLinked("it does not answer like a replica")
        self.expect_open()
        return self.stream.rest()

    async def hello(self) -> Greeting:
        """Return who the other side is. Raises NotLinked."""
        message = await self._heard()
        if not isinstance(message, Greeting):
            raise NotLinked("it does not begin like a replica")
        return message

    def accept(self) -> asyncio.Transport:
        """Consent; what follows is for another protocol."""
        self.transport.write(self.stream.accept())
        return self.transport

    def refuse(self, reason: str) -> None:
        """Do not."""
        self.transport.write(self.stream.refuse(reason))

    def expect_member(self, tls: MemberTls) -> None:
        """Raise NotLinked unless the other side has shown that it is a replica of ours."""
        connection = self.transport.get_extra_info("ssl_object")
        if connection is None or not is_member(connection):
            fix = "only replicas have member.crt, which has the subjectAltName URI:urn:harp:member"
            raise NotLinked(f"its certificate is of our CA ({shown(tls.authority)}), but not a replica's", fix)

    def expect_open(self) -> None:
        """Raise NotLinked when the connection is over."""
        if self.transport.is_closing():
            raise NotLinked(CLOSED)

    async def _heard(self) -> object:
        async with asyncio.timeout(ANSWER_LIMIT):
            return await self._said

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's TLS transports do not derive from it

    def data_received(self, data: bytes) -> None:
        self.stream.feed(data)
        try:
            message = self.stream.next()
        except PeerError as error:
            self._end(NotLinked(str(error)))
            self.transport.abort()
            return
        if message is not None and not self._said.done():
            self._said.set_result(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(NotLinked(_words_of_end(exc)))

    def _end(self, error: NotLinked) -> None:
        if not self._said.done():
            self._said.set_exception(error)
            self._said.exception()  # it may be that nobody waits yet, or any more


def _words_of_end(error: Exception | None) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:  # TLS 1.3: the other side refuses after our handshake
        return f"it refuses our certificate ({error.reason.replace('_', ' ').lower()})"
    return f"{CLOSED}; its log may say why"
