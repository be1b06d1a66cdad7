"""The walks of `harp doctor` through the public URL: which paths are its steps, for as long as it walks.

A step is /exapps/app_api/doctor/NONCE/STEP. It needs no key, because it has to pass what stands before HaRP as any
request does; so the nonce is random, good for one walk and a minute, and without it the answer is that of any path.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex

from msgspec import Struct

PREFIX = b"/doctor/"
STEPS = frozenset((b"hello", b"body", b"events", b"release", b"websocket"))
LIFETIME = 60.0  # seconds
MOST = 4  # walks at a time
SEEN = "harp-seen"  # the header line in which the control API learns how a step has arrived


class Walks:
    """The nonces that are good now."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ends: dict[bytes, float] = {}

    def begin(self) -> str:
        """Return the nonce of a new walk; the oldest gives way when there are too many."""
        if len(self._ends) >= MOST:
            del self._ends[next(iter(self._ends))]
        nonce = token_hex(24)
        self._ends[nonce.encode()] = self._now() + LIFETIME
        return nonce

    def end(self, nonce: str) -> None:
        """Take no more steps of a walk."""
        self._ends.pop(nonce.encode(), None)

    def expects(self, target: bytes) -> bool:
        """Is this raw target, without /exapps/app_api, a step of a walk?"""
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
