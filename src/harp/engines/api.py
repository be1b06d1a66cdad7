"""The API of one engine over any connection that HaRP can make: one request at a time, each within its limits.

Every request goes through here, and only here fails. Engines are not trusted, so each answer has a limit of
time and of size. Import this module off the hot path: its HTTP client costs a fifth of a second.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import msgspec
import structlog
from msgspec import Struct
from multidict import CIMultiDictProxy
from yarl import URL

from harp.engines.connector import DialerConnector, DialFunction
from harp.engines.errors import (
    EngineConflict,
    EngineError,
    EngineMissing,
    EngineRefused,
    EngineTimeout,
    EngineUnreachable,
)
from harp.engines.facts import EngineFacts
from harp.engines.replies import Version, message_of, parse
from harp.net.targets import Target
from harp.policy.docker_api import WANTED, ApiRange, EngineRequest, version_of

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

CALL = 60.0  # seconds for one call, unless it says otherwise
USUAL_ANSWER = 1 << 20  # bytes, unless a call says otherwise
VERSION_ANSWER = 64 << 10  # bytes of what an engine says of itself
LARGEST_ERROR = 64 << 10  # bytes of an answer from status 400 on

FALLBACK = ApiRange((1, 24), (1, 41))  # of an engine that does not say


class EngineAnswer(Struct, frozen=True):
    """What the engine said."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class EngineApi:
    """The API of the engine behind `target`. `facts` are known once `ask` has been answered."""

    def __init__(self, name: str, target: Target, dialer: DialFunction, connect: float) -> None:
        self.name = name
        self.facts: EngineFacts | None = None
        self._session = aiohttp.ClientSession(
            connector=DialerConnector(dialer, target, name, connect),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Drop all connections."""
        await self._session.close()

    @property
    def podman(self) -> bool:
        """Whether the engine has said that it is podman."""
        return self.facts is not None and self.facts.podman

    async def ask(self, limit: float) -> EngineFacts:
        """Learn what the engine is; every further call is made in a version that it supports."""
        answer = await self.call("GET", "/version", versioned=False, limit=limit, largest=VERSION_ANSWER)
        said = parse(answer.body, Version)
        high = version_of(said.api_version) or FALLBACK.high
        low = version_of(said.min_api_version) or min(FALLBACK.low, high)
        podman = any("podman" in component.name.lower() for component in said.components or ())
        self.facts = EngineFacts(said.version, ApiRange(low, high), podman)
        return self.facts

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        data: bytes | None = None,
        versioned: bool = True,
        limit: float = CALL,
        largest: int = USUAL_ANSWER,
    ) -> EngineAnswer:
        """Make one request. `path` is quoted already; `body` goes as JSON, `data` as a tar archive.

        Raises EngineTimeout after `limit` seconds, EngineUnreachable, EngineRefused for every status from 400, and
        EngineError for an answer of more than `largest` bytes.
        """
        content = data if body is None else msgspec.json.encode(body)
        kind = "application/json" if data is None else "application/x-tar"

        async def once() -> EngineAnswer:
            url = self._url(f"{self._prefix if versioned else ''}{path}").with_query(query)
            payload = None if content is None else io.BytesIO(content)  # sent piece by piece
            answer = await self._answer(method, url, {"content-type": kind}, payload, path, limit, largest)
            if answer.status >= 400:
                raise _refusal(answer, f"{method} {path} on {self.name}")
            return answer

        try:
            return await once()
        except EngineRefused as error:
            if not versioned or error.status != 400 or "client version" not in error.message:
                raise
        await self.ask(limit)  # another engine has taken its place, and takes other versions
        return await once()

    async def pass_whole(self, request: EngineRequest, limit: float, largest: int = USUAL_ANSWER) -> EngineAnswer:
        """Make a caller's request and return the whole answer, refusals included. Raises as `call` does otherwise."""
        url = self._url(self._target(request))
        return await self._answer("GET", url, {}, None, url.raw_path, limit, largest)

    async def open_stream(
        self, request: EngineRequest, login: bytes, *, head: float, silence: float
    ) -> aiohttp.ClientResponse:
        """Make a caller's request whose answer is passed on while it arrives; the caller closes it.

        `login` goes as X-Registry-Auth. Raises EngineTimeout without an answer within `head` seconds. Once the answer
        has begun, `silence` seconds without a byte are the library's TimeoutError.
        """
        url = self._url(self._target(request))
        method = "POST" if request.is_pull else "GET"
        headers = {"accept-encoding": "identity"}
        if login:
            headers["x-registry-auth"] = login.decode("latin-1")
        where = f"{method} {url.raw_path} on {self.name}"
        timeout = aiohttp.ClientTimeout(total=None, sock_read=silence)
        with _failures(head, where):
            async with asyncio.timeout(head):
                return await self._session.request(method, url, headers=headers, allow_redirects=False, timeout=timeout)

    @asynccontextmanager
    async def within(self, seconds: float, task: str) -> AsyncIterator[None]:
        """Limit several calls together."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise EngineTimeout(f"{self.name} did not {task} within {seconds:g} s") from error

    # Parts

    @property
    def _prefix(self) -> str:
        if self.facts is None:
            return ""
        major, minor = self.facts.api.nearest(WANTED)
        return f"/v{major}.{minor}"

    def _target(self, request: EngineRequest) -> str:
        return request.target(FALLBACK if self.facts is None else self.facts.api).decode("latin-1")

    def _url(self, target: str) -> URL:
        return URL(f"http://engine{target}", encoded=True)

    async def _answer(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        payload: io.BytesIO | None,
        path: str,
        limit: float,
        largest: int,
    ) -> EngineAnswer:
        where = f"{method} {path} on {self.name}"
        sent = {"accept-encoding": "identity", **headers}  # otherwise archives may be gzipped
        with _failures(limit, where):
            async with (
                asyncio.timeout(limit),
                self._session.request(method, url, data=payload, headers=sent, allow_redirects=False) as response,
            ):
                most = largest if response.status < 400 else min(largest, LARGEST_ERROR)
                answer = EngineAnswer(response.status, response.headers, await _content(response, most, where))
        log.debug("engine called", engine=self.name, method=method, path=path, status=answer.status)
        return answer


@contextmanager
def _failures(limit: float, where: str) -> Iterator[None]:
    """Translate the errors of the library into ours."""
    try:
        yield
    except TimeoutError as error:  # before OSError, its parent
        raise EngineTimeout(f"{where}: no answer within {limit:g} s") from error
    except (OSError, ValueError, aiohttp.ClientError) as error:  # ValueError: a head that the library cannot read
        raise EngineUnreachable(f"{where}: the connection broke: {error or type(error).__name__}") from error


async def _content(response: aiohttp.ClientResponse, largest: int, where: str) -> bytes:
    """Read the whole body. Raises EngineError when it is larger than `largest`."""
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > largest:
            response.close()
            raise EngineError(f"{where}: an answer of more than {largest} bytes")
    return bytes(content)


def _refusal(answer: EngineAnswer, where: str) -> EngineRefused:
    kind = {404: EngineMissing, 409: EngineConflict}.get(answer.status, EngineRefused)
    return kind(answer.status, message_of(answer.body), where)
