"""Who the credentials of recent requests belong to, so that 200 assets of one page cost one question."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

from harp.policy.exapp import Visitor

CAPACITY = 16384  # sessions


class SessionCache:
    """Answers of Nextcloud by a keyed hash of all credentials: no cookie or password is kept.

    An answer lives `lifetime` seconds, not prolonged by use; so the order of arrival is the order of expiry, and the
    oldest goes first when the cache is full.
    """

    def __init__(self, lifetime: float, now: Callable[[], float], key: bytes, capacity: int = CAPACITY) -> None:
        """`key` is random, 16 to 64 bytes, and known to this process only."""
        self._lifetime = lifetime
        self._now = now
        self._hash = blake2b(key=key, digest_size=20)
        self._capacity = capacity
        self._answers: OrderedDict[bytes, tuple[float, Visitor]] = OrderedDict()  # digest -> expiry, answer

    def digest(self, cookie: bytes, authorization: bytes | None) -> bytes:
        """Return the name of these credentials here. The length keeps the two values apart; an empty one is none."""
        state = self._hash.copy()
        state.update(b"%d;%b%b" % (len(cookie), cookie, authorization or b""))
        return state.digest()

    def get(self, digest: bytes) -> Visitor | None:
        """Return the answer, while it lives."""
        found = self._answers.get(digest)
        return found[1] if found is not None and self._now() < found[0] else None

    def until(self, digest: bytes) -> float:
        """When the answer expires; it may have, or never have been there."""
        found = self._answers.get(digest)
        return found[0] if found is not None else 0.0

    def put(self, digest: bytes, visitor: Visitor) -> None:
        """Remember an answer from now on."""
        if self._lifetime <= 0:
            return
        now = self._now()
        self._answers.pop(digest, None)
        self._answers[digest] = (now + self._lifetime, visitor)
        while self._answers:
            oldest = next(iter(self._answers))
            if self._answers[oldest][0] > now and len(self._answers) <= self._capacity:
                return
            del self._answers[oldest]

    def clear(self) -> None:
        """Forget everybody."""
        self._answers.clear()

    def __len__(self) -> int:
        """Return how many answers are kept, expired ones included."""
        return len(self._answers)
