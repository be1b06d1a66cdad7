"""The admin listener: is the process alive, and should it get requests?

Nothing here needs a key, so nothing here tells a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from aiohttp import web

from harp.status.conditions import Condition
from harp.status.engines import EngineLine


class Facts(Protocol):
    """What the process knows about itself. Every answer is at hand: nothing here waits."""

    def listeners(self) -> Mapping[str, Condition]:
        """Each configured listener by name ("http", "https", "frp"): does it accept connections, and where?"""
        ...

    def nextcloud(self) -> Condition | None:
        """How the last call to Nextcloud ended; None before the first one ended."""
        ...

    def draining(self) -> bool:
        """Have we been told to stop?"""
        ...

    def engines(self) -> Sequence[EngineLine]:
        """Every engine that was used or has a tunnel, by port."""
        ...


def application(facts: Facts) -> web.Application:
    """The pages of the admin listener."""
    pages = Pages(facts)
    app = web.Application()
    app.router.add_get("/heartbeat", pages.heartbeat)
    app.router.add_get("/healthz", pages.healthz)
    app.router.add_get("/readyz", pages.readyz)
    app.router.add_get("/engines", pages.engines)
    return app


class Pages:
    """Each answers 200; those about conditions 503 when one does not hold."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    async def heartbeat(self, request: web.Request) -> web.Response:
        """The event loop turns; nothing else is looked at (A 7.4)."""
        return web.json_response({"status": "ok"})

    async def healthz(self, request: web.Request) -> web.Response:
        """Alive: restart us when this fails. A process that drains has closed its listeners on purpose."""
        listeners = self._facts.listeners()
        healthy = self._facts.draining() or all(condition.ok for condition in listeners.values())
        return _answer("ok" if healthy else "failing", listeners, healthy)

    async def readyz(self, request: web.Request) -> web.Response:
        """Ready: send us requests. A Nextcloud that cannot be reached is shown, but does not make us unready.

        Without it PUBLIC routes, signed calls and cached sessions still work, and it is often Nextcloud that waits
        for us: two services that wait for each other never start. Only not having asked yet counts.
        """
        nextcloud = self._facts.nextcloud()
        draining = self._facts.draining()
        required = {
            **self._facts.listeners(),
            "accepting": Condition(not draining, "draining: told to stop" if draining else "accepting requests"),
        }
        conditions = {**required, "nextcloud": nextcloud or Condition(False, "not asked yet")}
        ready = nextcloud is not None and all(condition.ok for condition in required.values())
        return _answer("ready" if ready else "not ready", conditions, ready)

    async def engines(self, request: web.Request) -> web.Response:
        """The inventory of engines."""
        body = msgspec.json.encode(self._facts.engines())
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})


def _answer(status: str, conditions: Mapping[str, Condition], ok: bool) -> web.Response:
    described = {name: {"ok": condition.ok, "detail": condition.detail} for name, condition in conditions.items()}
    return web.json_response(
        {"status": status, "conditions": described},
        status=200 if ok else 503,
        headers={"Cache-Control": "no-store"},
    )
