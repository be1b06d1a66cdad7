"""Everything about one Nextcloud: its ExApps and visitors as far as known, bans, and how to ask it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Protocol, TypeVar

import structlog

from harp.logs import RareWarnings
from harp.net.deadlines import NEVER, Deadlines
from harp.net.turns import Turns
from harp.nextcloud.banning import Banning
from harp.nextcloud.client import NextcloudClient, Seen
from harp.nextcloud.http import SystemTrust
from harp.policy.decide import CONTROL, rules_from
from harp.policy.exapp import ExApp, RecordFact, Trouble, UnknownApp, Visitor, VisitorFact
from harp.policy.question import VisitorLogin
from harp.settings import Settings
from harp.state.records import RecordCache
from harp.state.route_tables import RouteTables
from harp.state.sessions import SessionCache
from harp.state.walks import Walks

K = TypeVar("K")
T = TypeVar("T")
log = structlog.get_logger()

PROBE_INTERVAL = 30.0  # seconds without news of a Nextcloud that answered
RETRY_INTERVAL = 5.0  # seconds between probes of one that did not

KEY_FIX = "compare HP_SHARED_KEY with the key of the deploy daemon in Nextcloud"

_STOPPING = Trouble("HaRP is stopping")


class NextcloudCalls(Protocol):
    """Who asks Nextcloud: `nextcloud.client.NextcloudClient`."""

    async def record(self, app_id: str, source: str) -> RecordFact:
        """Return what Nextcloud says of an ExApp."""

    async def visitor(self, app_id: str, login: VisitorLogin, address: str, source: str) -> Seen:
        """Return who logs in with `login` from a client's `address`."""

    def also(self, app_id: str, source: str) -> None:
        """Another client waits for the record of an ExApp."""

    async def close(self) -> None:
        """Give up all connections."""


class Places(Protocol):
    """A better source than Nextcloud for where an ExApp is: `engines.kubernetes.lookout.Lookout`."""

    def placed(self, record: ExApp) -> ExApp:
        """Return the record with the address that its ExApp has; unchanged if that is not known."""

    async def known(self) -> None:
        """Wait, not for long, until the places are known."""

    def doubt(self, app_id: str) -> None:
        """An ExApp did not answer at its address."""


class RecordNews(Protocol):
    """Who tells other members: `cluster.events.Events`."""

    def record_put(self, record: ExApp) -> None:
        """AppAPI has brought a record."""

    def record_gone(self, app_id: str) -> None:
        """AppAPI has withdrawn one."""


class Instance:
    """One Nextcloud. The facts of the decision: what is known, and what has to be asked.

    More than 25 methods, because the gate, tunnels, the control API and the status pages ask it different things.
    Calls to Nextcloud run in tasks of their own, one per ExApp and one per set of credentials; who needs the same
    answer waits for the same task, and a caller that stops waiting does not cancel it.
    """

    def __init__(
        self,
        settings: Settings,
        now: Callable[[], float],
        deadlines: Deadlines | None = None,
        client: NextcloudCalls | None = None,
        warnings: RareWarnings | None = None,
        turns: Turns | None = None,
        trust: SystemTrust | None = None,
    ) -> None:
        """`client` asks instead of one made from the settings, which has `deadlines`, `turns` and `trust`."""
        self._places: Places | None = None  # None = records lead where Nextcloud says
        self.url = settings.nextcloud.url
        self.rules = rules_from(settings)
        self.records = RecordCache(settings.nextcloud.record_lifetime, now)
        self.sessions = SessionCache(settings.nextcloud.session_lifetime, now, key=os.urandom(32))
        name = settings.instance
        self.banning = Banning(settings.bans, now, warnings or RareWarnings(now), self._outdate, deadlines, name)
        self._log = log.bind(instance=name) if name else log
        self.bans = self.banning.list
        self.news: RecordNews | None = None
        self.calls = self.failures = 0  # to Nextcloud: answered or not, and those without a proper answer
        self.walks = Walks(now)
        self.expects = self.walks.expects
        self.version = 0  # counts what changes or has to be asked again: decisions made before may not hold any more
        self.reachable: bool | None = None  # None = not asked yet
        self.last_error = ""  # why it is not reachable
        self._noted = float("-inf")  # when the facts of readiness were last seen to
        self._now = now
        self._client = client or NextcloudClient(
            settings.nextcloud, settings.shared_key, now, self.banned, deadlines, turns, trust
        )
        self._route_tables = RouteTables()
        self._compiling: dict[str, asyncio.Task[RecordFact]] = {}
        self._records_asked: dict[str, asyncio.Task[RecordFact]] = {}
        self._visitors_asked: dict[bytes, asyncio.Task[VisitorFact]] = {}
        self._closed = False
        self._key_proved = False  # Nextcloud has shown us a record, or AppAPI has brought one
        self.key_doubted = ""  # the ExApp that was asked for when Nextcloud knew none, with our key

    # What is known now

    def banned(self, ban_key: str) -> float:
        """Return seconds until this client is served again; 0.0 = it is not banned."""
        return self.bans.seconds(ban_key)

    def record(self, app_id: str) -> RecordFact | None:
        """Return the record, however old; an outdated one is refreshed in the background.

        None also when its routes have to be compiled first.
        """
        if self.records.take_due(app_id):
            self._ask_record(app_id)
        record = self.records.get(app_id)
        return None if isinstance(record, ExApp) and not record.table.ready else record

    def visitor(self, digest: bytes) -> VisitorFact | None:
        """Return who the credentials with this digest belong to, if that is cached."""
        return self.sessions.get(digest)

    def lasting(self, digest: bytes) -> float:
        """Return until when the answer about these credentials may be used; without credentials, indefinitely."""
        return self.sessions.until(digest) if digest else NEVER

    def digest(self, cookie: bytes, authorization: bytes | None) -> bytes:
        """Return the cache key of the owner of these credentials."""
        return self.sessions.digest(cookie, authorization)

    # What has to be asked: trouble with Nextcloud is a fact, too

    async def record_of(self, app_id: str, source: str = "") -> RecordFact:
        """Return the record of an ExApp, by its lower-cased id, ready for use: ask Nextcloud, or compile its routes.

        `source` is the ban key of the client who wants it, "" = HaRP itself.
        """
        known = self.records.get(app_id)
        if isinstance(known, ExApp) and not known.table.ready:
            return await _result(_shared(self._compiling, app_id, lambda: self._compiled(known)))
        return await _result(self._ask_record(app_id, source))

    async def visitor_of(
        self,
        app_id: str,
        digest: bytes,
        login: VisitorLogin,
        address: str,
        source: str = "",
        patience: float | None = None,
    ) -> VisitorFact:
        """Ask Nextcloud whose `login` this is. `digest` is its name here, `address` the client's, `source` its ban key.

        After `patience` seconds the caller gets Trouble while the call continues; None = no limit of its own.
        """
        return await _result(self._ask_visitor(app_id, digest, login, address, source), patience)

    async def asked_anew(self, app_id: str) -> RecordFact:
        """Return what Nextcloud says about an ExApp now, bypassing the cache."""
        fact = await self._client.record(app_id, "")
        self._note(fact)
        return fact

    async def probe(self) -> bool:
        """Ask Nextcloud something harmless, for readiness. An id that no app can have costs no throttling (A 5.3)."""
        await _result(self._ask_record(CONTROL))
        return bool(self.reachable)

    def keep_probed(self) -> None:
        """Probe in the background if the readiness facts are outdated. May be called as often as needed."""
        self._probe_after(PROBE_INTERVAL if self.reachable else RETRY_INTERVAL)

    def _probe_after(self, seconds: float) -> None:
        now = self._now()
        if now - self._noted >= seconds:
            self._noted = now
            self._ask_record(CONTROL)

    # What others tell

    def strike(self, ban_key: str, reason: str, proxy_key: str = "") -> None:
        """Count a strike against a client, and against the peer that reported it, unless that peer is trusted."""
        self.banning.strike(ban_key, reason, proxy_key)

    def lift(self, address: str) -> bool:
        """End a ban at an operator's word. False if there was none."""
        return self.banning.lift(address)

    def _outdate(self) -> None:
        """Make earlier decisions invalid."""
        self.version += 1

    def connection_failed(self, app_id: str) -> None:
        """An ExApp's address did not answer: have its record refreshed at the next request."""
        if self._places is not None:
            self._places.doubt(app_id)
        self._doubt(app_id)

    def _doubt(self, app_id: str) -> None:
        if self.records.doubt(app_id):
            self.version += 1  # or kept decisions would hide it until the next tick

    def put(self, record: ExApp) -> None:
        """Take a record from the control API."""
        self.take(record)
        if self.news is not None:
            self.news.record_put(record)

    def take(self, record: ExApp) -> None:
        """The same, from another member that has it from there."""
        record = self._placed(record)
        self._report(record)
        self._key_proved = True
        self.version += 1
        self.records.put(record)

    def find_at(self, places: Places) -> None:
        """Use the addresses of `places` in records from now on."""
        self._places = places

    async def fetch(self, app_id: str) -> RecordFact:
        """Ask Nextcloud now for the record of the lower-cased id, whatever it said before."""
        self.drop(app_id)
        return await self.record_of(app_id)

    def relocate(self) -> None:
        """Places have changed: update the address in every record."""
        for record in self.records.list():
            placed = self._placed(record)
            if placed is not record:
                self._report(placed)
                self.records.move(placed)
                self.version += 1

    def _placed(self, record: ExApp) -> ExApp:
        return record if self._places is None else self._places.placed(record)

    def delete(self, app_id: str) -> bool:
        """Forget a record, for the control API; any spelling of the id. Return False if there was none."""
        if self.news is not None:
            self.news.record_gone(app_id.lower())
        return self.drop(app_id.lower())

    def drop(self, app_id: str) -> bool:
        """Forget it, for another member."""
        self.version += 1
        return self.records.delete(app_id)

    async def close(self) -> None:
        """End all calls; their callers learn that HaRP stops."""
        self._closed = True
        tasks = [*self._records_asked.values(), *self._compiling.values(), *self._visitors_asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.banning.close()
        await self._client.close()

    # Calls

    def _ask_record(self, app_id: str, source: str = "") -> asyncio.Task[RecordFact]:
        if app_id in self._records_asked:
            self._client.also(app_id, source)
        return _shared(self._records_asked, app_id, lambda: self._load_record(app_id, source))

    def _ask_visitor(
        self, app_id: str, digest: bytes, login: VisitorLogin, address: str, source: str
    ) -> asyncio.Task[VisitorFact]:
        return _shared(self._visitors_asked, digest, lambda: self._load_visitor(app_id, digest, login, address, source))

    async def _load_record(self, app_id: str, source: str) -> RecordFact:
        if self._closed:
            return _STOPPING
        changes = self.records.changes
        fact = await self._client.record(app_id, source)
        self._note(fact, probe=app_id == CONTROL)
        if app_id != CONTROL:
            self._note_key(app_id, fact)
        if isinstance(fact, ExApp) and self._places is not None:
            await self._places.known()
            fact = self._placed(fact)
        if isinstance(fact, ExApp) and self.records.get(app_id) != fact:
            self._report(fact)
            await self._compiled(fact)
        if isinstance(fact, Trouble) or self.records.changes != changes:  # the control API's word is newer than this
            return self.records.get(app_id) or fact
        self.version += 1
        self.records.learn(app_id, fact)
        return self.records.get(app_id) or fact

    async def _load_visitor(
        self, app_id: str, digest: bytes, login: VisitorLogin, address: str, source: str
    ) -> VisitorFact:
        if self._closed:
            return _STOPPING
        seen = await self._client.visitor(app_id, login, address, source)
        self._note(seen.fact)
        if seen.app_refused:
            self._doubt(app_id)
        if seen.lasting and isinstance(seen.fact, Visitor):
            self.sessions.put(digest, seen.fact)
        return seen.fact

    def _note_key(self, app_id: str, fact: RecordFact) -> None:
        """Warn once when Nextcloud knows no ExApp at all: so it says as well when the shared key is wrong (A 5.2)."""
        if isinstance(fact, ExApp):
            self._key_proved, self.key_doubted = True, ""
        elif isinstance(fact, UnknownApp) and not fact.no_appapi and not (self._key_proved or self.key_doubted):
            self.key_doubted = app_id
            self._log.warning(
                "Nextcloud refuses the shared key or knows no ExApp at all", asked_for=app_id, fix=KEY_FIX
            )

    def _note(self, fact: RecordFact | VisitorFact, *, probe: bool = False) -> None:
        """Keep the facts of readiness, and log when they change.

        Any good answer means that it is available. A failure for one app or visitor may be theirs alone: a probe tells.
        """
        self.calls += 1
        if not isinstance(fact, Trouble) and not (isinstance(fact, UnknownApp) and fact.no_appapi):
            if not self.reachable:
                self._log.info("Nextcloud available again", url=self.url)
            self.reachable, self.last_error = True, ""
            self._noted = self._now()
            return
        self.failures += 1
        if probe:
            if self.reachable is not False or self.last_error != fact.reason:
                self._log.warning("Nextcloud unavailable", url=self.url, reason=fact.reason)
            self.reachable, self.last_error = False, fact.reason
            self._noted = self._now()
        else:
            self._probe_after(RETRY_INTERVAL)

    def _report(self, record: ExApp) -> None:
        """Log a record that is news."""
        if self.records.get(record.app_id) != record:
            self._log.info(
                "record loaded", app=record.app_id, version=record.version, host=record.host, port=record.port
            )

    async def _compiled(self, record: ExApp) -> RecordFact:
        """Compile the routes of a record, and log what is wrong with them the first time."""
        table = record.table
        known = table.problems
        await self._route_tables.compile(table)
        for problem in table.problems if not known else ():
            self._log.warning("route skipped", app=record.app_id, reason=problem)
        return record


def _shared(tasks: dict[K, asyncio.Task[T]], key: K, load: Callable[[], Coroutine[None, None, T]]) -> asyncio.Task[T]:
    """Return the task that answers `key`: the running one, or a new one."""
    task = tasks.get(key)
    if task is None:
        task = tasks[key] = asyncio.get_running_loop().create_task(load())
        task.add_done_callback(lambda _: tasks.pop(key, None))
    return task


async def _result(task: asyncio.Task[T], patience: float | None = None) -> T | Trouble:
    """Wait for a shared task without owning it: giving up does not cancel it for the others."""
    done, _ = await asyncio.wait((task,), timeout=patience)
    if not done:
        return Trouble(f"Nextcloud has not answered within {patience:g} s")
    return _STOPPING if task.cancelled() else task.result()
