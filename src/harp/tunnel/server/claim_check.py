"""Who a tunnel client is, and whether it may have what it claims (difference 12).

Engines and ExApps made before log in with the shared key, ExApps with a key of their own (HP_EXAPP_KEYS=derived) with
that; the latter opens the tunnel of its ExApp and nothing else. Nextcloud determines which port an ExApp
has, the administrator which port an engine has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import structlog

from harp.logs import RareWarnings
from harp.net.tasks import Tasks
from harp.policy.claims import engine_key_objection, engine_objection, key_objection, record_objection
from harp.policy.exapp import RecordFact, Trouble
from harp.policy.keys import engine_of, is_engine_key, own_key_of
from harp.policy.ports import ENGINE_PORTS, EXAPP_PORTS
from harp.settings import Settings
from harp.state.engine_names import EngineKeys, EngineNames, EngineNamesError

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

MOST_CHECKS = 256  # claims that are looked at behind the clients' backs, at a time
PATIENCE = 18.0  # seconds that a claim waits for Nextcloud: frpc repeats itself after 20, and after 30 when refused
PAUSE = 1.0  # seconds between two questions to a Nextcloud that cannot be asked


class RecordSource(Protocol):
    """Where ExApps' records come from: `nextcloud.instance.Instance`."""

    def record(self, app_id: str) -> RecordFact | None:
        """Return what is known."""
        ...

    async def record_of(self, app_id: str) -> RecordFact:
        """Ask for the record."""
        ...


class ClaimCheck:
    """Checks claims. With `claims` "strict", claims that do not match are refused, with "warn" they are logged.

    What comes with an ExApp's own key is always checked strictly, and a port that was given to an engine is its alone.
    """

    def __init__(
        self,
        settings: Settings,
        records: RecordSource,
        engines: EngineNames,
        warnings: RareWarnings,
        *,
        keys: EngineKeys | None = None,
        patience: float = PATIENCE,
        pause: float = PAUSE,
    ) -> None:
        self._shared_key = settings.shared_key
        self._strict = settings.tunnel.claims == "strict"
        self._records = records
        self._engines = engines
        self._keys = keys
        self._warnings = warnings
        self._patience = patience
        self._pause = pause
        self._tasks = Tasks()

    def knows(self, token: str) -> bool:
        """Return whether it is an ExApp's or engine's own key. Reads a small file; no stranger gets so far."""
        return bool(own_key_of(token, self._shared_key)) or bool(self._engine_of(token, self._salts()))

    async def objection(self, token: str, name: str, port: int, address: str = "") -> str:
        """Return why a client that logged in with `token` cannot claim `name` and `port`, "" when it can."""
        if engine_of(token):
            return await self._keyed_objection(token, name, port)
        owner = own_key_of(token, self._shared_key)
        if owner:
            refusal = key_objection(owner, name, exapp_port=port in EXAPP_PORTS)
            if refusal:
                return refusal
        if port in ENGINE_PORTS:
            return await self._engine_objection(name, port, address)
        if port not in EXAPP_PORTS:
            return ""  # never granted; reported elsewhere
        if self._strict or owner:  # who has a key of its own could be any ExApp, a hostile one, too
            return await self._record_objection(name, port)
        if len(self._tasks) < MOST_CHECKS:
            self._tasks.start(self._warn(name, port, address))
        return ""

    async def close(self) -> None:
        """Stop checking."""
        await self._tasks.close()

    def _salts(self) -> Mapping[str, str]:
        try:
            return self._keys.all() if self._keys is not None else {}
        except EngineNamesError as error:
            self._warnings.warning("engine keys cannot be read", str(error))
            return {}

    def _engine_of(self, token: str, salts: Mapping[str, str]) -> str:
        """Return the engine whose own key this is now, "" when it is nobody's."""
        name = engine_of(token)
        salt = salts.get(name, "")
        return name if salt and is_engine_key(token, self._shared_key, name, salt) else ""

    async def _keyed_objection(self, token: str, name: str, port: int) -> str:
        engine = self._engine_of(token, await asyncio.to_thread(self._salts))
        holder = (await self._named()).get(port, "")
        return engine_key_objection(engine, name, holder)

    async def _named(self) -> Mapping[int, str]:
        try:
            return await asyncio.to_thread(self._engines.all)
        except EngineNamesError as error:
            self._warnings.warning("engine names cannot be read", str(error))
            return {}

    async def _engine_objection(self, name: str, port: int, address: str) -> str:
        """Object to other names: any ExApp may have the shared key, and could get what is deployed there."""
        salts = await asyncio.to_thread(self._salts)
        objection = engine_objection(await self._named(), name, port, salts)
        if objection is None:
            return ""
        if self._strict or objection.certain:
            return objection  # a refusal is logged by the tunnel
        self._warnings.warning("tunnel claims an engine port", objection, address, name=name, port=port)
        return ""

    async def _warn(self, name: str, port: int, address: str) -> None:
        objection = await self._record_objection(name, port)
        if objection:
            self._warnings.warning("doubtful tunnel claim", objection, address, name=name, port=port)

    async def _record_objection(self, name: str, port: int) -> str:
        """Return what Nextcloud says; what does not fit is asked again, the app may have been installed again.

        A Nextcloud that cannot be asked, because it is about to start, is asked again as long as a client waits.
        """
        known = self._records.record(name.lower())
        if known is not None and not record_objection(known, name, port):
            return ""
        fact: RecordFact = Trouble(f"no answer within {self._patience:g} s")
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    fact = await self._records.record_of(name.lower())
                    if not isinstance(fact, Trouble):
                        break
                    await asyncio.sleep(self._pause)
        except TimeoutError:
            pass
        return record_objection(fact, name, port)
