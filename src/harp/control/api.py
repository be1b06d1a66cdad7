"""The control API, /exapps/app_api/...: what AppAPI asks of HaRP itself (A 4).

Requests arrive authenticated, with the path after /exapps/app_api. Every endpoint is its happy path; `failures`
answers the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, Protocol

import msgspec
import structlog
from aiohttp import web

from harp import __version__
from harp.control import docker, passthrough, walk
from harp.control.failures import ClusterDisabled, InvalidPayload, failures
from harp.control.payloads import LARGEST_BODY, LoginCall, decode, pushed_record
from harp.policy.exapp import ExApp, RecordFact
from harp.policy.exapp_target import exapp_targets_from
from harp.settings import Settings

if TYPE_CHECKING:
    from harp.engines.kubernetes.cluster import KubernetesCluster

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

BANNED = "banned"
Authenticate = Callable[[str, str], str | None]
"""(client's IP address, token) -> None when the token is right, BANNED, or another reason for refusal.

It counts a wrong token as a strike.
"""


class RecordStore(Protocol):
    """Where pushed records go: the instance."""

    def put(self, record: ExApp) -> None:
        """Use `record` from now on, instead of any other of the same app."""
        ...

    def delete(self, app_id: str) -> bool:
        """Forget the record of the lower-cased id; was there one?"""
        ...

    async def fetch(self, app_id: str) -> RecordFact:
        """Ask Nextcloud now for the record of the lower-cased id."""
        ...


def application(
    instance: RecordStore,
    settings: Settings,
    authenticate: Authenticate,
    engines: docker.Fleet,
    cluster: KubernetesCluster | None = None,
) -> web.Application:
    """Return the control API of one instance."""
    api = Api(instance, settings, authenticate, cluster)
    app = web.Application(middlewares=[failures], client_max_size=LARGEST_BODY)
    app.on_response_prepare.append(_sign)
    app.router.add_get("/heartbeat", api.heartbeat)
    app.router.add_get("/info", api.info)
    app.router.add_post("/exapp_storage/{app_id}", api.store)
    app.router.add_delete("/exapp_storage/{app_id}", api.forget)
    app.router.add_post("/frp_handler", api.frp_login)
    docker.register(app, engines, settings)
    passthrough.register(app, engines, settings)
    walk.register(app)
    if cluster is None:
        app.router.add_post("/k8s/exapp/install_certificates", api.no_certificates)
        app.router.add_route("*", "/k8s/{call:.*}", api.no_kubernetes)
    else:
        from harp.control import kubernetes  # noqa: PLC0415 - who has no cluster does not pay for it

        kubernetes.register(app, cluster, instance, settings.kubernetes, exapp_targets_from(settings))
    return app


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    """Every answer carries the request id that is in the log, and no text of the library."""
    response.headers.pop("Server", None)
    request_id = request.headers.get("X-Request-Id")
    if request_id is not None:
        response.headers["X-Request-Id"] = request_id


class Api:
    """The endpoints."""

    def __init__(
        self,
        instance: RecordStore,
        settings: Settings,
        authenticate: Authenticate,
        cluster: KubernetesCluster | None = None,
    ) -> None:
        self._cluster = cluster
        self._instance = instance
        self._settings = settings
        self._authenticate = authenticate
        self._targets = exapp_targets_from(settings)

    async def heartbeat(self, request: web.Request) -> web.Response:
        """Return that HaRP is alive; nothing else is checked (A 4.2)."""
        return web.json_response({"status": "ok"})

    async def info(self, request: web.Request) -> web.Response:
        """Return what this HaRP is and can do (A 4.2). AppAPI compares `version` with the least it accepts."""
        kubernetes: object = {"enabled": False} if self._cluster is None else await self._cluster.info()
        body = msgspec.json.encode({"version": __version__, "docker": True, "kubernetes": kubernetes})
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    async def store(self, request: web.Request) -> web.Response:
        """Replace the record of an app: the end of its enabling (A 4.3, A 5.4)."""
        record = pushed_record(request.match_info["app_id"], await request.read())
        if self._cluster is not None:
            await self._cluster.lookout.known()
        objection = self._targets.objection(record.host, record.port)
        if objection is not None:
            raise InvalidPayload(f"Payload validation error: host, port: {objection}")
        self._instance.put(record)
        log.info("record stored", app=record.app_id, version=record.version, host=record.host, port=record.port)
        return web.Response(status=204)

    async def forget(self, request: web.Request) -> web.Response:
        """Drop the record of an app: the end of its disabling. AppAPI takes 404 as success."""
        app_id = request.match_info["app_id"].lower()
        if not self._instance.delete(app_id):
            raise web.HTTPNotFound
        log.info("record removed", app=app_id)
        return web.Response(status=204)

    async def frp_login(self, request: web.Request) -> web.Response:
        """Answer what a separate frps asks at each login (A 4.4). Our own FRP server does not use it."""
        call = decode(await request.read(), LoginCall)
        metas = call.content.metas
        reason = self._authenticate(call.peer(), metas.token if metas else "")
        if reason == BANNED:
            return web.json_response({"reject": True, "reject_reason": BANNED})
        if reason is not None:
            return web.Response(status=400, text=reason)
        return web.json_response({"reject": False, "unchange": True})

    async def no_kubernetes(self, request: web.Request) -> NoReturn:
        """No cluster."""
        raise ClusterDisabled("Kubernetes backend is disabled in HaRP.")

    async def no_certificates(self, request: web.Request) -> web.Response:
        """No cluster, and nothing to do in one (K 4.6)."""
        decode(await request.read(), docker.CertificatesBody).names()
        return web.Response(status=204)
