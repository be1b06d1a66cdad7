"""/engine/...: the calls of AppAPI's Docker client that are forwarded to an engine (A 3, difference 9).

Small answers are complete, arrive within a time limit, and are checked before they are shown: a container has to be
ours. Logs and pulls are passed on as they arrive. The gate puts /engine in front of the path.
"""

from __future__ import annotations

import asyncio

import aiohttp
import structlog
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from harp.control.docker import PORT_HEADER, Fleet, engine_port
from harp.control.failures import NotOnTheList
from harp.engines.api import EngineAnswer
from harp.engines.docker import INSPECT, PING
from harp.engines.errors import EngineError, EngineTimeout
from harp.engines.pulls import PullReader
from harp.policy.docker_api import EngineRequest, engine_request
from harp.settings import Settings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

PREFIX = "/engine"
MARGIN = 0.1  # seconds
LOGIN_HEADER = "x-registry-auth"
DOUBTFUL = frozenset((400, 502, 504))  # answers after which an engine may be another one, with another API
# Fields that end with one connection, or that the next one has its own of; Server would be the engine's alone.
_NOT_PASSED = frozenset(
    ("connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)


def register(app: web.Application, engines: Fleet, settings: Settings) -> None:
    """Add the endpoint to the control API."""
    app.router.add_route("*", f"{PREFIX}/{{call:.*}}", PassThrough(engines, settings).answer)


class PassThrough:
    """The endpoint."""

    def __init__(self, engines: Fleet, settings: Settings) -> None:
        self._engines = engines
        self._settings = settings

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer as the engine does, or say why not. Raises HarpError."""
        port = engine_port(request.headers.get(PORT_HEADER, ""), self._settings.engines.ports)
        wanted = _wanted(request)
        try:
            if wanted.is_stream:
                return await self._streamed(request, port, wanted)
            return self._whole(port, await self._looked(port, wanted))
        except EngineError:
            self._engines.doubt(port)
            raise

    async def _looked(self, port: int, wanted: EngineRequest) -> EngineAnswer:
        """Make a small request within its time, which includes learning what the engine is."""
        limit = PING if wanted.is_ping else INSPECT
        try:
            async with asyncio.timeout(limit):
                engine = await self._engines.engine(port, limit - MARGIN)  # it has the better words
                return await engine.answer(wanted)
        except TimeoutError as error:
            what = wanted.rest.decode("latin-1")
            raise EngineTimeout(f"{self._engines.name(port)} did not answer {what} within {limit:g} s") from error

    def _whole(self, port: int, answer: EngineAnswer) -> web.Response:
        if answer.status in DOUBTFUL:
            self._engines.doubt(port)
        return web.Response(status=answer.status, headers=_passed(answer.headers), body=answer.body)

    async def _streamed(self, request: web.Request, port: int, wanted: EngineRequest) -> web.StreamResponse:
        engine = await self._engines.engine(port, INSPECT)
        timeouts = self._settings.timeouts
        login = request.headers.get(LOGIN_HEADER, "").encode("latin-1", "replace")
        source = await engine.stream(wanted, login, head=timeouts.response, silence=timeouts.server)
        if isinstance(source, EngineAnswer):
            return self._whole(port, source)
        async with source:
            if source.status in DOUBTFUL:
                self._engines.doubt(port)
            reader = PullReader(engine.pulls, wanted.image) if wanted.is_pull else None
            return await _relayed(request, source, reader)


def _wanted(request: web.Request) -> EngineRequest:
    """Return the caller's request as HaRP sends it. Raises NotOnTheList."""
    path, _, query = request.raw_path.encode("utf-8", "surrogateescape").removeprefix(PREFIX.encode()).partition(b"?")
    wanted = engine_request(request.method.encode(), path, query)
    if isinstance(wanted, str):
        raise NotOnTheList(wanted)
    return wanted


async def _relayed(
    request: web.Request, source: aiohttp.ClientResponse, reader: PullReader | None
) -> web.StreamResponse:
    """Pass an answer on as it arrives. A broken one is cut off, so that the caller notices."""
    response = web.StreamResponse(status=source.status, headers=_passed(source.headers))
    await response.prepare(request)
    try:
        async for piece in source.content.iter_any():
            if reader is not None:
                reader.feed(piece)
            await response.write(piece)
        if reader is not None:
            reader.end()
        await response.write_eof()
    except ConnectionError:  # of the caller, who has left: the engine ends what it did for us
        pass
    except (OSError, aiohttp.ClientError) as error:
        reason = str(error) or type(error).__name__
        log.warning("engine response cut short", path=request.path, reason=reason)
        if reader is not None:
            reader.broken(reason)
        if request.transport is not None:
            request.transport.abort()
    return response


def _passed(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the header fields of an engine's answer that go on."""
    named = {option.strip().lower() for value in headers.getall("connection", ()) for option in value.split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _NOT_PASSED | named)
