"""GET calls to Nextcloud, over connections of the one HTTP/1 client (`proxy/upstreams`)."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote, urljoin, urlsplit

from msgspec import Struct

from harp import __version__
from harp.errors import PeerError, Unreachable, words_of
from harp.net.deadlines import NEVER, Deadlines
from harp.net.dial import Dialer
from harp.net.ports import PortTable
from harp.net.resolve import Resolver
from harp.net.targets import Tcp, Tls
from harp.net.turns import Turns
from harp.proxy.upstream import Upstream
from harp.proxy.upstreams import Upstreams
from harp.settings import Nextcloud, Timeouts
from harp.wire.http import Fields
from harp.wire.responses import ResponseHead

REDIRECTS = 3
URLS = 512  # whose request lines are remembered: one or two for each ExApp that is used
IDLE = 4.0  # seconds an unused connection is kept: less than the 5 s of a usual Apache
PORTS = {"http": 80, "https": 443}

_OWN_FIELDS = b"accept: application/json\r\naccept-encoding: identity\r\nuser-agent: HaRP/%b\r\n" % __version__.encode()
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch
_QUOTED = "!$%&'()*+,/:;=?@[]~"  # what may appear in a request target unquoted
_MOVED = frozenset((301, 302, 303, 307, 308))
_NO_LIMITS = Timeouts(
    NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, upstream_idle=IDLE, drain=NEVER, upgrade=NEVER
)


class Unanswered(PeerError):
    """No answer came in time."""


class Dropped(PeerError):
    """A new connection ended without a byte of an answer: it is safe to ask once more."""


class NextcloudAnswer(Struct, frozen=True):
    """A complete answer."""

    status: int
    body: bytes
    maintenance: bool = False  # Nextcloud says so in a header
    retry_after: str = ""


class SystemTrust:
    """TLS with the system's CAs, read when they are first needed: 2 MB that all Nextclouds share."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._context: ssl.SSLContext | None = None

    async def context(self) -> ssl.SSLContext:
        """Return it; reading takes some hundredths of a second, in a thread."""
        async with self._lock:
            if self._context is None:
                self._context = await asyncio.to_thread(_system_trust)
            return self._context


class Getter:
    """Makes calls with the shared key, over kept connections, without cookies or proxies of its own.

    Connections and the resolver are its own: ExApps' names that hang do not keep Nextcloud waiting.
    """

    def __init__(
        self,
        settings: Nextcloud,
        shared_key: str,
        now: Callable[[], float],
        deadlines: Deadlines | None = None,
        turns: Turns | None = None,
        trust: SystemTrust | None = None,
    ) -> None:
        self._key = shared_key.encode("utf-8", "surrogateescape")
        self._origin = urlsplit(settings.url)
        self._target: Tcp | Tls | None = None
        self._trust = trust or SystemTrust()
        self._resolver = Resolver(now)
        ports = PortTable()
        dialer = Dialer(ports, self._resolver, connect=settings.connect_timeout, hold=0)
        self._upstreams = Upstreams(dialer, ports, deadlines or Deadlines(), _NO_LIMITS, turns=turns)

    async def get(self, url: str, headers: Fields, limit: int, within: float) -> NextcloudAnswer:
        """Get `url`, below the URL of the settings, with at most `limit` bytes of body, in at most `within` seconds.

        Every call to Nextcloud passes here, and only here fails. Raises Unreachable when no connection can be made,
        Unanswered, Dropped or another PeerError when no usable answer comes. The texts hold no address and no secret.
        """
        fields = [*headers, (b"harp-shared-key", self._key)]
        try:
            async with asyncio.timeout(within):
                return await self._followed(url, fields, limit)
        except TimeoutError as error:
            raise Unanswered(f"Nextcloud has not answered within {within:g} s") from error

    async def close(self) -> None:
        """Give up idle connections; calls under way end with their tasks."""
        await self._upstreams.close()
        self._resolver.close()

    async def _followed(self, url: str, fields: Fields, limit: int) -> NextcloudAnswer:
        """Follow redirects within the origin only: the shared key travels along."""
        for _ in range(REDIRECTS + 1):
            response = await self._exchanged(url, fields, limit)
            location = response.head.get(b"location") if response.head.status in _MOVED else b""
            if not location:
                return _answer(response)
            url = _redirected(url, location.decode("utf-8", "replace"))
        raise PeerError(f"Nextcloud redirects more than {REDIRECTS} times")

    async def _exchanged(self, url: str, fields: Fields, limit: int) -> Response:
        """Send one request and read its response."""
        try:
            request = _request(url, fields)
        except ValueError as error:
            raise PeerError(f"the call to Nextcloud failed: {error}") from error
        target = await self._where()
        kept = self._upstreams.take(target, IDLE)
        if kept is not None:
            try:
                return await _asked(kept, request, limit)
            except Dropped:
                pass  # it had ended before our request reached it (RFC 9112 section 9.3.1): another one will do
        try:
            connection = await self._upstreams.dial(target)
        except Unreachable as error:
            raise Unreachable(f"Nextcloud cannot be reached: {_cause(error)}") from error.__cause__
        return await _asked(connection, request, limit)

    async def _where(self) -> Tcp | Tls:
        """Return where Nextcloud is."""
        if self._target is None:
            host = self._origin.hostname or ""
            port = self._origin.port or PORTS[self._origin.scheme]
            secure = self._origin.scheme == "https"
            self._target = Tls(host, port, await self._trust.context()) if secure else Tcp(host, port)
        return self._target


class Response(Struct, frozen=True):
    """A complete response."""

    head: ResponseHead
    body: bytes


class Call:
    """User of a connection for one GET: collects the answer, with at most `limit` bytes of body."""

    def __init__(self, connection: Upstream, limit: int) -> None:
        self.answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._connection = connection
        self._limit = limit
        self._head: ResponseHead | None = None
        self._body = bytearray()

    def on_interim(self, head: ResponseHead) -> None: ...

    def on_answer(self, status: int, start: bytes, data: bytes) -> None:
        self.on_head(ResponseHead(status, start, len(data), True, None), len(data), data, True)

    def on_head(self, head: ResponseHead, length: int, data: bytes, end: bool) -> None:
        self._head = head
        if length > self._limit:
            self._fail(self._too_long())
            return
        self.on_data(data)
        if end:
            self.on_end([])

    def on_upgrade(self, head: ResponseHead, data: bytes) -> None:
        self._fail(PeerError("the call to Nextcloud failed: a response with status 101"))

    def on_data(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self._limit:
            self._fail(self._too_long())

    def on_end(self, trailers: Fields) -> None:
        if not self.answer.done():
            assert self._head is not None
            self.answer.set_result(Response(self._head, bytes(self._body)))

    def on_eof(self) -> None: ...

    def on_silence(self) -> float | None:
        return None

    def on_lost(self, reason: str, *, status: int, silent: bool) -> None:
        self._fail((Dropped if silent else PeerError)(f"the call to Nextcloud failed: it {reason}"))

    def on_blocked(self) -> None: ...

    def on_drained(self) -> None: ...

    def _too_long(self) -> PeerError:
        return PeerError(f"the call to Nextcloud failed: an answer longer than {self._limit} bytes")

    def _fail(self, error: PeerError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self._connection.end()


async def _asked(connection: Upstream, request: bytes, limit: int) -> Response:
    """Send a request over a connection. A caller that stops waiting for the answer closes it."""
    call = Call(connection, limit)
    connection.send(call, request, False, True, NEVER)
    try:
        return await call.answer
    except asyncio.CancelledError:
        connection.end()
        raise


def _request(url: str, fields: Fields) -> bytes:
    """Return the bytes of a GET. Raises ValueError if it cannot be sent."""
    if any(_VALUE(value) is None for _, value in fields):
        raise ValueError("a credential contains a control character")
    return b"%b%b\r\n" % (_start_of(url), b"".join([b"%b: %b\r\n" % field for field in fields]))


@lru_cache(URLS)
def _start_of(url: str) -> bytes:
    """Return the request line, and the header lines that are the same for every call. Raises ValueError."""
    parts = urlsplit(url)
    target = quote(parts.path or "/", _QUOTED) + (f"?{quote(parts.query, _QUOTED)}" if parts.query else "")
    host = parts.netloc.encode("ascii" if parts.netloc.isascii() else "idna")
    return b"GET %b HTTP/1.1\r\nhost: %b\r\n%b" % (target.encode(), host, _OWN_FIELDS)


def _answer(response: Response) -> NextcloudAnswer:
    """Return the answer in a response that is not a redirect.

    Raises PeerError when its body cannot be read.
    """
    head = response.head
    coding = head.get(b"content-encoding").lower()
    if response.body and coding not in (b"", b"identity"):
        raise PeerError("Nextcloud's answer is compressed, although HaRP does not ask for that: does a proxy do that?")
    if head.status == 200:
        return NextcloudAnswer(200, response.body)
    return NextcloudAnswer(
        head.status,
        response.body,
        head.get(b"x-nextcloud-maintenance-mode") == b"1",
        head.get(b"retry-after").decode("latin-1"),
    )


def _redirected(url: str, location: str) -> str:
    """Return where `location` leads from `url`. Raises PeerError for another origin, or none."""
    try:
        wanted = urljoin(url, location)
        origin = _origin(wanted)
    except ValueError:
        raise PeerError("Nextcloud redirects to something that is not a URL") from None
    if origin != _origin(url):
        raise PeerError(f"Nextcloud redirects to {origin}: is NC_INSTANCE_URL right?")
    return wanted


def _origin(url: str) -> str:
    """scheme://host:port; one with user information is like no other. Raises ValueError."""
    parts = urlsplit(url)
    port = parts.port or PORTS.get(parts.scheme, 0)
    return f"{parts.scheme}://{'user@' if parts.username is not None else ''}{parts.hostname or ''}:{port}"


def _cause(error: Unreachable) -> str:
    """Return one short line about a failed connect, without addresses."""
    match error.__cause__:
        case OSError() as cause:
            return words_of(cause)
        case UnicodeError():
            return "its name is not a host name"
    return "no connection"


def _system_trust() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
