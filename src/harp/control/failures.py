"""Errors of the control API: raised anywhere below an endpoint, answered here alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from harp.engines.errors import (
    AlreadyThere,
    EngineConflict,
    EngineError,
    EngineMissing,
    EngineTimeout,
    ForeignOwner,
    NotThere,
)
from harp.errors import BadRequest, HarpError, Unreachable

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class InvalidPayload(HarpError):
    """The body is not what the endpoint accepts. The text never repeats a value from it."""


class NotOnTheList(HarpError):
    """A call that is not forwarded to engines."""


class ClusterDisabled(HarpError):
    """This HaRP has no Kubernetes."""


STATUS: dict[type[BaseException], int] = {
    InvalidPayload: 400,
    BadRequest: 400,
    NotOnTheList: 403,
    ClusterDisabled: 503,
    Unreachable: 503,
    EngineMissing: 404,
    EngineConflict: 409,
    ForeignOwner: 409,
    NotThere: 404,
    AlreadyThere: 409,
    EngineTimeout: 504,
    EngineError: 503,
    HarpError: 500,
}


def status_of(error: HarpError) -> int:
    """Return the HTTP status for `error`: that of its nearest kind."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what an endpoint raises: our errors in their own words, bugs with a bare 500 (A 4.1)."""
    try:
        return await handler(request)
    except HarpError as error:
        status = status_of(error)
        log.warning("control call refused", method=request.method, path=request.path, status=status, reason=str(error))
        return web.Response(status=status, text=str(error))
    except web.HTTPException:
        raise
    except Exception:
        log.exception("control call failed", method=request.method, path=request.path)
        return web.Response(status=500, text="500 Internal Server Error\n\nServer got itself in trouble")
