"""GET calls to Nextcloud, and nothing else of HTTP.

By hand, because a client library would be a quarter of the memory of an idle process, for a few calls a minute.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Callable
from urllib.parse import quote, urljoin, urlsplit

from msgspec import Struct

from harp import __version__
from harp.errors import PeerError, Unreachable
from harp.net.resolve import Resolver
from harp.nextcloud.connections import PORTS, Connection, Connections
from harp.settings import Nextcloud
from harp.wire.http import Fields
from harp.wire.response import Response

REDIRECTS = 3

_OWN_FIELDS = b"accept: application/json\r\naccept-encoding: identity\r\nuser-agent: HaRP/%b\r\n" % __version__.encode()
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch
_QUOTED = "!$%&'()*+,/:;=?@[]~"  # what stands in a request target as it is


class Unanswered(PeerError):
    """No answer came in time."""


class Dropped(PeerError):
    """A new connection ended without a byte of an answer: nothing speaks against asking once more."""


class Answer(Struct, frozen=True):
    """A complete answer."""

    status: int
    body: bytes
    maintenance: bool = False  # Nextcloud says so in a header
    retry_after: str = ""


class Getter:
    """Makes calls with the shared key, over kept connections, without cookies or proxies of its own."""

    def __init__(self, settings: Nextcloud, shared_key: str, now: Callable[[], float]) -> None:
        self._key = shared_key.encode("utf-8", "surrogateescape")
        self._resolver = Resolver(now)  # of our own: ExApps' names that hang do not keep Nextcloud waiting
        self._connections = Connections(settings.url, self._resolver, settings.connect_timeout)

    async def get(self, url: str, headers: Fields, limit: int, within: float) -> Answer:
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

    def close(self) -> None:
        """Give up idle connections; calls under way end with their tasks."""
        self._connections.close()
        self._resolver.close()

    async def _followed(self, url: str, fields: Fields, limit: int) -> Answer:
        """Follow redirects within the origin only: the shared key travels along."""
        for _ in range(REDIRECTS + 1):
            response = await self._exchanged(url, fields, limit)
            location = response.header(b"location")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                return _answer(response)
            url = _redirected(url, location.decode("utf-8", "replace"))
        raise PeerError(f"Nextcloud redirects more than {REDIRECTS} times")

    async def _exchanged(self, url: str, fields: Fields, limit: int) -> Response:
        """One request and its response."""
        try:
            request = _request(url, fields)
            kept = self._connections.take()
            if kept is not None:
                try:
                    return await self._asked(kept, request, limit)
                except ConnectionError:
                    pass  # it had ended before our request reached it (RFC 9112 section 9.3.1): another one will do
            return await self._asked(await self._connected(), request, limit)
        except ConnectionError as error:
            raise Dropped(f"the call to Nextcloud failed: {_cause(error)}") from error
        except (PeerError, OSError, ValueError) as error:
            raise PeerError(f"the call to Nextcloud failed: {_cause(error)}") from error

    async def _asked(self, connection: Connection, request: bytes, limit: int) -> Response:
        response = await connection.ask(request, limit)
        self._connections.keep(connection)
        return response

    async def _connected(self) -> Connection:
        try:
            return await self._connections.connect()
        except (Unreachable, OSError) as error:
            cause = error.__cause__ if isinstance(error, Unreachable) else error
            raise Unreachable(f"Nextcloud cannot be reached: {_cause(cause or error)}") from error


def _request(url: str, fields: Fields) -> bytes:
    """The bytes of a GET. Raises ValueError for what cannot be sent."""
    if any(_VALUE(value) is None for _, value in fields):
        raise ValueError("a credential holds a control character")
    parts = urlsplit(url)
    target = quote(parts.path or "/", _QUOTED) + (f"?{quote(parts.query, _QUOTED)}" if parts.query else "")
    host = parts.netloc.encode("ascii" if parts.netloc.isascii() else "idna")
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    return b"GET %b HTTP/1.1\r\nhost: %b\r\n%b%b\r\n" % (target.encode(), host, _OWN_FIELDS, lines)


def _answer(response: Response) -> Answer:
    """What there is to know of a response that is not followed. Raises PeerError when its body cannot be read."""
    coding = response.header(b"content-encoding").lower()
    if response.body and coding not in (b"", b"identity"):
        raise PeerError("Nextcloud's answer is compressed, though we ask for it plain: does a proxy do that?")
    return Answer(
        response.status,
        response.body,
        response.header(b"x-nextcloud-maintenance-mode") == b"1",
        response.header(b"retry-after").decode("latin-1"),
    )


def _redirected(url: str, location: str) -> str:
    """Where `location` leads from `url`. Raises PeerError for another origin, or none."""
    try:
        wanted = urljoin(url, location)
        origin = _origin(wanted)
    except ValueError:
        raise PeerError("Nextcloud redirects to what is not a URL") from None
    if origin != _origin(url):
        raise PeerError(f"Nextcloud redirects to {origin}: is NC_INSTANCE_URL right?")
    return wanted


def _origin(url: str) -> str:
    """scheme://host:port; one with user information is like no other. Raises ValueError."""
    parts = urlsplit(url)
    port = parts.port or PORTS.get(parts.scheme, 0)
    return f"{parts.scheme}://{'user@' if parts.username is not None else ''}{parts.hostname or ''}:{port}"


def _cause(error: BaseException) -> str:
    """One short line about a failed call, without addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'no reason given').replace('_', ' ').lower()}"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower() if error.errno > 0 else (error.strerror or "no such host")
    if isinstance(error, TimeoutError):
        return "time-out"
    return next(iter(str(error).splitlines()), "")[:80] or type(error).__name__
