"""The pages of the admin listener: is the process alive, and should it get requests?

Nothing here needs a key, so nothing here reveals a secret.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec

from harp.status.conditions import Condition
from harp.status.engines import EngineLine


class Facts(Protocol):
    """What the process knows about itself. Every answer is available at once: nothing here waits."""

    def listeners(self) -> Mapping[str, Condition]:
        """Each configured listener by name ("http", "https", "frp"): does it accept connections, and where?"""
        ...

    def nextcloud(self) -> Condition | None:
        """Return how the last call to Nextcloud ended; None before the first one ended."""
        ...

    def draining(self) -> bool:
        """Have we been asked to stop?"""
        ...

    def engines(self) -> Sequence[EngineLine]:
        """Return every engine that was used or has a tunnel, by port."""
        ...


class Page(msgspec.Struct, frozen=True):
    """A page as it is now."""

    status: int
    body: bytes
    kind: str = "application/json"
    allow: str = ""  # the methods that would do, for 405
    lines: tuple[str, ...] = ()  # more header lines
    keep: str = "no-store"  # how long it may be kept, as Cache-Control says it
    stream: AsyncIterator[bytes] | None = None  # instead of `body`: pieces that come by and by


class Pages:
    """Each answers 200; those about conditions 503 when one does not hold."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._pages = {
            b"/heartbeat": self.heartbeat,
            b"/healthz": self.healthz,
            b"/readyz": self.readyz,
            b"/engines": self.engines,
        }

    @property
    def paths(self) -> Sequence[bytes]:
        """Where there are pages."""
        return list(self._pages)

    def at(self, path: bytes) -> Page | None:
        """Return the page at a path, without its query; None when there is none."""
        page = self._pages.get(path)
        return None if page is None else page()

    def heartbeat(self) -> Page:
        """Show that the event loop runs; nothing else is checked (A 7.4)."""
        return Page(200, b'{"status":"ok"}')

    def healthz(self) -> Page:
        """Alive: restart us when this fails. A process that drains has closed its listeners on purpose."""
        listeners = self._facts.listeners()
        healthy = self._facts.draining() or all(condition.ok for condition in listeners.values())
        return _page("ok" if healthy else "failing", listeners, healthy)

    def readyz(self) -> Page:
        """Ready: send us requests. A Nextcloud that cannot be reached is shown, but does not make us unready.

        Without it PUBLIC routes, signed calls and cached sessions still work, and it is often Nextcloud that waits
        for us: two services that wait for each other never start. Only not having asked yet makes a difference.
        """
        nextcloud = self._facts.nextcloud()
        draining = self._facts.draining()
        required = {
            **self._facts.listeners(),
            "accepting": Condition(not draining, "draining: asked to stop" if draining else "accepting requests"),
        }
        conditions = {**required, "nextcloud": nextcloud or Condition(False, "not asked yet")}
        ready = nextcloud is not None and all(condition.ok for condition in required.values())
        return _page("ready" if ready else "not ready", conditions, ready)

    def engines(self) -> Page:
        """Return the inventory of engines."""
        return Page(200, msgspec.json.encode(self._facts.engines()))


def _page(status: str, conditions: Mapping[str, Condition], ok: bool) -> Page:
    return Page(200 if ok else 503, msgspec.json.encode({"status": status, "conditions": conditions}))
