"""Who a tunnel client is, and whether it may have what it claims (difference 12).

Engines and ExApps made before log in with the shared key, ExApps with a key of their own (HP_EXAPP_KEYS=derived) with
that; the latter opens the tunnel of its ExApp and nothing else. Which port an ExApp has is Nextcloud's word.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from harp.policy.claims import key_objection, own_key_of, record_objection
from harp.policy.exapp import RecordFact
from harp.policy.ports import EXAPP_PORTS
from harp.settings import Settings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

MOST_CHECKS = 256  # claims that are looked at behind the clients' backs, at a time


class Records(Protocol):
    """Where ExApps' records come from: `nextcloud.instance.Instance`."""

    def record(self, app_id: str) -> RecordFact | None:
        """What is known."""
        ...

    async def record_of(self, app_id: str) -> RecordFact:
        """Ask for the record."""
        ...


class Vetting:
    """Looks at claims. With `claims` "strict" what does not fit is refused, with "warn" it is told.

    What comes with an ExApp's own key is always looked at strictly.
    """

    def __init__(self, settings: Settings, records: Records) -> None:
        self._shared_key = settings.shared_key
        self._strict = settings.tunnel.claims == "strict"
        self._records = records
        self._checks: set[asyncio.Task[None]] = set()

    def knows(self, token: str) -> bool:
        """Is it the own key of any ExApp?"""
        return bool(own_key_of(token, self._shared_key))

    async def objection(self, token: str, name: str, port: int) -> str:
        """Why a client that logged in with `token` cannot claim `name` and `port`, "" when it can."""
        exapp_port = port in EXAPP_PORTS
        owner = own_key_of(token, self._shared_key)
        if owner:
            refusal = key_objection(owner, name, exapp_port=exapp_port)
            if refusal:
                return refusal
        if not exapp_port:
            return ""
        if self._strict or owner:  # who has a key of its own could be any ExApp, a hostile one, too
            return await self._asked(name, port)
        if len(self._checks) < MOST_CHECKS:
            check = asyncio.get_running_loop().create_task(self._warn(name, port))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)
        return ""

    async def close(self) -> None:
        """Stop looking."""
        for check in list(self._checks):
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)

    async def _warn(self, name: str, port: int) -> None:
        objection = await self._asked(name, port)
        if objection:
            log.warning("doubtful tunnel claim", name=name, port=port, reason=objection)

    async def _asked(self, name: str, port: int) -> str:
        """Nextcloud's word; what does not fit is asked anew, the app may have been installed again."""
        known = self._records.record(name.lower())
        if known is not None and not record_objection(known, name, port):
            return ""
        return record_objection(await self._records.record_of(name.lower()), name, port)
