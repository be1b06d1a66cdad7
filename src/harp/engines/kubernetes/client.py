"""A thin client of a Kubernetes API server: typed answers, bounded calls, the cluster's words in every error (K 2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import TypeVar

import aiohttp
import msgspec
import structlog
from msgspec import Struct
from yarl import URL

from harp import __version__
from harp.engines.api import EngineAnswer
from harp.engines.errors import (
    EngineConflict,
    EngineError,
    EngineMissing,
    EngineRefused,
    EngineTimeout,
    EngineUnreachable,
)
from harp.engines.kubernetes.login import ClusterLogin
from harp.engines.replies import words
from harp.policy.kubernetes_shapes import StatusReply
from harp.settings import Kubernetes
from harp.wire.decoding import decoded

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

T = TypeVar("T")

CALL = 15.0  # seconds for one call with all its attempts, unless it says otherwise
CONNECT = 5.0  # seconds for one connection
ATTEMPTS = 3
PAUSE = 0.2  # seconds before the second attempt, and three times that before the third
LONGEST_PAUSE = 5.0  # seconds that a busy API server can have us wait
CONNECTIONS = 16
LARGEST_ANSWER = 32 << 20  # bytes; a list of some thousand objects
LARGEST_LINE = 4 << 20  # bytes of one change in a watch
LARGEST_ERROR = 64 << 10

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
BUSY = 429
TRANSIENT = frozenset((500, 502, 503, 504))


class Change(Struct, frozen=True):
    """One line of a watch."""

    type: str  # ADDED, MODIFIED, DELETED, BOOKMARK or ERROR
    object: msgspec.Raw


class ClusterApi:
    """The API server of the settings."""

    def __init__(self, settings: Kubernetes, now: Callable[[], float]) -> None:
        self.server = settings.api_server
        self._login = ClusterLogin(settings, now)
        self._now = now
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Drop all connections."""
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, shape: type[T], query: Mapping[str, str] | None = None, *, limit: float = CALL) -> T:
        """Read an object, or a list of them. Raises EngineError as `call`."""
        answer = await self.call("GET", path, query=query, limit=limit)
        return await parsed(answer.body, shape)

    async def find(self, path: str, shape: type[T], *, limit: float = CALL) -> T | None:
        """Read an object, None when there is none."""
        try:
            return await self.get(path, shape, limit=limit)
        except EngineMissing:
            return None

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        kind: str = "application/json",
        limit: float = CALL,
    ) -> EngineAnswer:
        """Make one request; repeat it if that is safe and may help.

        Raises EngineUnreachable without an answer within `limit` seconds, and EngineRefused for every other than 2xx.
        """
        content = None if body is None else msgspec.json.encode(body)
        where = f"{method} {path.partition('?')[0]}"
        try:
            async with asyncio.timeout(limit):
                return await self._attempts(method, path, query, content, kind, where)
        except TimeoutError:
            self._login.doubt()
            raise EngineUnreachable(
                f"Error communicating with Kubernetes API: {where}: no answer within {limit:g} s"
            ) from None

    async def watch(
        self, path: str, query: Mapping[str, str], *, seconds: int, silence: float
    ) -> AsyncIterator[Change]:
        """Yield the changes that the API server reports, for at most `seconds`.

        Raises EngineError; EngineTimeout after `silence` seconds without data.
        """
        wanted = {**query, "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        where = f"watch {path}"
        timeout = aiohttp.ClientTimeout(total=seconds + silence, sock_connect=CONNECT, sock_read=silence)
        try:
            async with await self._request("GET", path, wanted, None, "application/json", timeout) as response:
                if response.status >= 300:
                    raise _refusal(response.status, await _content(response, LARGEST_ERROR), where)
                pending = bytearray()
                async for piece in response.content.iter_any():
                    pending += piece
                    *lines, rest = pending.split(b"\n")
                    pending = bytearray(rest)
                    if len(pending) > LARGEST_LINE:
                        raise EngineError(f"{where}: a change of more than {LARGEST_LINE} bytes")
                    for line in lines:
                        if line:
                            yield decoded(bytes(line), Change, _unreadable)
        except TimeoutError as error:
            raise EngineTimeout(f"{where}: silence") from error
        except (OSError, aiohttp.ClientError, ValueError) as error:
            raise _broken(where, error) from error

    # Parts

    async def _attempts(
        self, method: str, path: str, query: Mapping[str, str] | None, content: bytes | None, kind: str, where: str
    ) -> EngineAnswer:
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            pause = PAUSE * 3**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - so that not all come back at once
            try:
                answer = await self._once(method, path, query, content, kind)
            except (OSError, aiohttp.ClientError, ValueError) as error:
                self._login.doubt()
                connected = not isinstance(error, aiohttp.ClientConnectorError)
                if last or (method == "POST" and connected):  # it may have been done
                    raise _broken(where, error) from error
            else:
                log.debug("cluster called", method=method, path=path, status=answer.status)
                if answer.status < 300:
                    return answer
                refusal = _refusal(answer.status, answer.body, where)
                if last:
                    raise refusal
                if answer.status == 401:
                    self._login.doubt()  # the token has been replaced
                elif answer.status == BUSY:
                    with suppress(ValueError):
                        pause = min(float(answer.headers.get("Retry-After", "")), LONGEST_PAUSE)
                elif answer.status not in TRANSIENT or method != "GET":
                    raise refusal
            await asyncio.sleep(pause)
        raise AssertionError

    async def _once(
        self, method: str, path: str, query: Mapping[str, str] | None, content: bytes | None, kind: str
    ) -> EngineAnswer:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT)
        async with await self._request(method, path, query, content, kind, timeout) as response:
            body = await _content(response, LARGEST_ANSWER if response.status < 300 else LARGEST_ERROR)
            return EngineAnswer(response.status, response.headers, body)

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        content: bytes | None,
        kind: str,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the library's own
    ) -> aiohttp.ClientResponse:
        token, context = await self._login.current()
        headers = {
            "authorization": f"Bearer {token}",
            "accept": "application/json",
            "user-agent": f"harp/{__version__}",
        }
        if content is not None:
            headers["content-type"] = kind
        url = URL(self.server + path, encoded=True)
        if query:
            url = url.with_query(query)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return await self._session.request(
            method, url, data=content, headers=headers, ssl=context, timeout=timeout, allow_redirects=False
        )


async def parsed(body: bytes, shape: type[T]) -> T:
    """Read JSON as `shape`, off the loop if it is large. Raises EngineError."""
    if len(body) < 64 << 10:
        return decoded(body, shape, _unreadable)
    return await asyncio.to_thread(decoded, body, shape, _unreadable)


def _unreadable(error: Exception) -> EngineError:
    return EngineError(f"the API server's answer is not what its API promises: {error}")


async def _content(response: aiohttp.ClientResponse, largest: int) -> bytes:
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > largest:
            response.close()
            raise EngineError(f"an answer of more than {largest} bytes")
    return bytes(content)


def _refusal(status: int, body: bytes, where: str) -> EngineRefused:
    kind = {404: EngineMissing, 409: EngineConflict}.get(status, EngineRefused)
    try:
        message = decoded(body, StatusReply, _unreadable).message
    except EngineError:
        message = body[:1000].decode("utf-8", "replace")
    return kind(status, words(message) or "no reason given", where)


def _broken(where: str, error: Exception) -> EngineUnreachable:
    return EngineUnreachable(
        f"Error communicating with Kubernetes API: {where}: {words(str(error)) or type(error).__name__}"
    )
