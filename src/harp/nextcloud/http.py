"""GET calls to Nextcloud over aiohttp, and nothing else of HTTP.

A module of its own because the library takes long to load: see NextcloudClient.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import aiohttp
from msgspec import Struct
from yarl import URL

from harp import __version__
from harp.errors import PeerError, Unreachable
from harp.settings import Nextcloud

CONNECTIONS = 100
IDLE = 4.0  # seconds an unused connection is kept: less than the 5 s of a usual Apache
NAMES = 30  # seconds a resolved name is believed
REDIRECTS = 3


class Answer(Struct, frozen=True):
    """A complete answer."""

    status: int
    body: bytes
    maintenance: bool = False  # Nextcloud says so in a header
    retry_after: str = ""


class Getter:
    """Makes calls with the shared key, over pooled connections, without cookies or proxies of its own."""

    def __init__(self, settings: Nextcloud, shared_key: str) -> None:
        self._key = shared_key
        self._timeout = settings.timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=IDLE, ttl_dns_cache=NAMES),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": f"HaRP/{__version__}"},
            timeout=aiohttp.ClientTimeout(total=settings.timeout, sock_connect=settings.connect_timeout),
            trust_env=False,
        )

    async def get(self, url: str, headers: Mapping[str, str], limit: int) -> Answer:
        """Get `url` with at most `limit` bytes of body. Every call to Nextcloud passes here, and only here fails.

        Raises Unreachable when no connection can be made, PeerError when no usable answer comes. The texts hold no
        address and no secret.
        """
        try:
            return await self._followed(url, headers, limit)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable(f"Nextcloud cannot be reached: {_cause(error)}") from error
        except TimeoutError as error:
            raise PeerError(f"Nextcloud has not answered within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PeerError(f"the call to Nextcloud failed: {_cause(error)}") from error

    async def close(self) -> None:
        """Give up all connections."""
        await self._session.close()

    async def _followed(self, url: str, headers: Mapping[str, str], limit: int) -> Answer:
        """Follow redirects within the origin only: the shared key travels along."""
        headers = {**headers, "harp-shared-key": self._key}
        for _ in range(REDIRECTS + 1):
            async with self._session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as response:
                location = response.headers.get("location")
                if response.status not in (301, 302, 303, 307, 308) or location is None:
                    return Answer(
                        response.status,
                        await _body(response, limit),
                        response.headers.get("x-nextcloud-maintenance-mode") == "1",
                        response.headers.get("retry-after", ""),
                    )
            wanted = urljoin(url, location)
            if _origin(wanted) != _origin(url):
                raise PeerError(f"Nextcloud redirects to {_origin(wanted)}: is NC_INSTANCE_URL right?")
            url = wanted
        raise PeerError(f"Nextcloud redirects more than {REDIRECTS} times")


async def _body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > limit:
            raise PeerError(f"Nextcloud's answer is longer than {limit} bytes")
    return bytes(body)


def _origin(url: str) -> str:
    """scheme://host:port; one with user information is like no other. Raises ValueError."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{'user@' if parts.username is not None else ''}{parts.hostname or ''}:{port}"


def _cause(error: Exception) -> str:
    """One short line about a failed call, without addresses."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'no reason given').replace('_', ' ').lower()}"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "time-out"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower() if error.errno > 0 else (error.strerror or "no such host")
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return next(iter(text.splitlines()), "")[:80] or type(error).__name__
