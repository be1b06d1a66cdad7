"""The walks of `harp doctor` through the public URL: which paths are its steps, for as long as it walks.

A step is /exapps/app_api/doctor/NONCE/STEP. It needs no key, because it has to pass what stands before HaRP as any
request does; so the nonce is random, good for one walk and a minute, and without it the answer is that of any path.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

PREFIX = b"/doctor/"
STEPS = frozenset((b"hello", b"body", b"events", b"release", b"websocket"))
LIFETIME = 60.0  # seconds
MOST = 4  # walks at a time
SEEN = "harp-seen"  # the header line in which the control API learns how a step has arrived


class WalkNews(Protocol):
    """Who tells other members, where a step may arrive as well: `cluster.events.Events`."""

    def walk_begun(self, nonce: str) -> None:
        """A walk has begun here."""

    def walk_ended(self, nonce: str) -> None:
        """It is over."""


class Walks:
    """The nonces that are good now."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.news: WalkNews | None = None
        self._now = now
        self._ends: dict[bytes, float] = {}

    def begin(self) -> str:
        """Return the nonce of a new walk; the oldest gives way when there are too many."""
        nonce = os.urandom(24).hex()
        self.expect(nonce)
        if self.news is not None:
            self.news.walk_begun(nonce)
        return nonce

    def expect(self, nonce: str) -> None:
        """Take the steps of a walk that has begun, here or at another member."""
        if len(self._ends) >= MOST:
            del self._ends[next(iter(self._ends))]
        self._ends[nonce.encode()] = self._now() + LIFETIME

    def end(self, nonce: str) -> None:
        """Accept no further steps of a walk."""
        self.forget(nonce)
        if self.news is not None:
            self.news.walk_ended(nonce)

    def forget(self, nonce: str) -> None:
        """The same, at another member's word."""
        self._ends.pop(nonce.encode(), None)

    def expects(self, target: bytes) -> bool:
        """Return whether this raw target, without /exapps/app_api, is a step of a walk."""
        if not self._ends or not target.startswith(PREFIX):
            return False
        nonce, _, step = target.removeprefix(PREFIX).partition(b"/")
        return step in STEPS and self._ends.get(nonce, 0.0) > self._now()


class SeenStep(Struct, frozen=True):
    """A request as HaRP has seen it."""

    path: str
    peer: str  # the other end of the connection: the reverse proxy, if there is one
    peer_port: int
    address: str  # the client, as HaRP has understood it
    told: str  # what the header with clients' addresses says
    neighbour: bool  # may the peer name clients?
    host: str
    proto: str
    upgrade: bool  # an upgrade is asked for
