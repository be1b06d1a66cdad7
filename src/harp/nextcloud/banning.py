"""Bans as they begin, end and are lifted: counted, and reported in the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from harp.logs import RareWarnings
from harp.net.deadlines import NEVER, Deadlines
from harp.policy.bans import PROXY_FACTOR
from harp.policy.client_address import may_be_proxy
from harp.settings import Bans
from harp.state.bans import BanList

PROXY_FIX = "if this is the reverse proxy, everybody behind it is banned: name it in HP_TRUSTED_PROXY_IPS"

log = structlog.get_logger()


class BanNews(Protocol):
    """Who tells other members: `cluster.events.Events`."""

    def struck(self, address: str, reason: str, factor: int) -> None:
        """A strike was counted here."""

    def lifted(self, address: str) -> None:
        """An operator has lifted the ban of an address."""


class Banning:
    """Counts strikes and reports their effects. `changed` is called when a ban begins or is lifted."""

    def __init__(
        self,
        bans: Bans,
        now: Callable[[], float],
        warnings: RareWarnings,
        changed: Callable[[], None],
        deadlines: Deadlines | None = None,
        instance: str = "",
    ) -> None:
        """`instance` is the name in the log, where there are several Nextclouds."""
        self.list = BanList(bans, now)
        self.deadline = NEVER
        self.begun = 0  # since the start
        self.strikes = 0
        self.news: BanNews | None = None
        self._now = now
        self._warnings = warnings
        self._changed = changed
        self._deadlines = deadlines
        self._log = log.bind(instance=instance) if instance else log
        if deadlines is not None:
            deadlines.watch(self)

    def banned(self, ban_key: str) -> float:
        """Return seconds until this client is served again; 0.0 = it is not banned."""
        return self.list.seconds(ban_key)

    def close(self) -> None:
        """Stop watching for the ends of bans."""
        if self._deadlines is not None:
            self._deadlines.drop(self)

    def strike(self, ban_key: str, reason: str, proxy_key: str = "") -> None:
        """Count a strike against a client, and against the peer that reported it, unless that peer is trusted."""
        self.strikes += 1
        self._log.info("strike counted", address=ban_key, reason=reason)
        self._count(ban_key, reason, 1)
        if proxy_key:
            self._count(proxy_key, reason, PROXY_FACTOR)

    def take(self, address: str, reason: str, factor: int, ages: Sequence[float], *, again: bool = False) -> None:
        """Add strikes that another member has counted, perhaps told `again`. It reports a ban that they cause."""
        if self.list.add(address, reason, factor, ages, again=again):
            self._changed()
            self.deadline = min(self.deadline, self.list.next_end())

    def lift(self, address: str) -> bool:
        """Forget all strikes of an address, on an operator's request. Return False if it was not banned."""
        was_banned = self.forgive(address)
        if was_banned:
            self._log.warning("ban lifted", address=address)
        if self.news is not None:
            self.news.lifted(address)
        return was_banned

    def forgive(self, address: str) -> bool:
        """Forget its strikes here. Return False if it was not banned."""
        was_banned = self.list.seconds(address) > 0.0
        self.list.lift(address)
        if was_banned:
            self._changed()
        return was_banned

    def expired(self) -> None:
        """Timed: a ban may be over."""
        for address in self.list.ended():
            self._warnings.warning("ban ended", "its strikes are too old to count", address)
        self.deadline = self.list.next_end()

    def _count(self, key: str, reason: str, factor: int) -> None:
        if self.list.strike(key, reason, factor):
            self._begun(key, reason)
        if self.news is not None:
            self.news.struck(key, reason, factor)

    def _begun(self, key: str, reason: str) -> None:
        self.begun += 1
        self._changed()
        fix = {"fix": PROXY_FIX} if may_be_proxy(key) else {}
        self._warnings.warning("address banned", reason, key, seconds=round(self.list.seconds(key)), **fix)
        self.deadline = min(self.deadline, self.list.next_end())
