"""What happened to requests, for people: counts, the access log, and warnings about those that HaRP could not serve."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Protocol

from msgspec.structs import asdict

from harp.frontend.access import AccessLog, Entry, EntryOfInstance
from harp.frontend.exchange import Exchange
from harp.frontend.traffic import Traffic
from harp.logs import RareWarnings, timestamp
from harp.policy.question import Key
from harp.policy.verdict import Control, Engine, Forward, Gateway, Refuse, Verdict
from harp.wire.requests import RequestHead

MOST_APPS = 4096  # as many as there are records
INTERNAL = 500  # is logged with its traceback where it happens
KEY_FIX = "compare HP_SHARED_KEY with the key of the deploy daemon in Nextcloud"


class Tracer(Protocol):
    """Makes traces of requests: `status.traces.Traces`."""

    def onward(self, exchange: Exchange, head: RequestHead) -> RequestHead:
        """Note that a request goes on; its head, so that the trace goes on with it."""

    def ended(self, exchange: Exchange, seconds: float) -> None:
        """Note that a request is over."""


class Books:
    """Takes every exchange that is over."""

    def __init__(
        self, access_log: AccessLog, warnings: RareWarnings, tracer: Tracer | None = None, instance: str = ""
    ) -> None:
        """`instance` is the name in the access log, where there are several Nextclouds."""
        self.instance = instance
        self.access_log = access_log
        self.apps: dict[str, Traffic] = {}  # by lower-cased id
        self.control = Traffic()  # calls of AppAPI to HaRP itself
        self.others = Traffic()  # requests for no ExApp we know
        self.refusals: dict[int, int] = {}  # answers of our own, by status
        self.watcher: Callable[[Exchange, float], None] | None = None  # sees every request, while somebody watches
        self.failed: Callable[[Exchange, float], None] | None = None  # sees those that failed
        self.tracer = tracer
        self._warnings = warnings

    def enter(self, exchange: Exchange) -> None:
        """Note one exchange that is over."""
        traffic = exchange.traffic
        if traffic is None:
            traffic = self.control if isinstance(exchange.verdict, (Control, Engine)) else self.others
        seconds = monotonic() - exchange.started if exchange.started else 0.0
        status = exchange.status
        traffic.count(status, exchange.received, exchange.sent, seconds)
        if exchange.waits is not None:
            traffic.count_waits(exchange.waits)
        if exchange.began:
            traffic.count_early(exchange.began - exchange.started, seconds)
        if exchange.refused or status >= INTERNAL:
            self._enter_failure(exchange, seconds)
        else:
            traffic.answered = exchange.started
        if self.watcher is not None:
            self.watcher(exchange, seconds)
        if self.tracer is not None:
            self.tracer.ended(exchange, seconds)
        access = self.access_log
        if access.every or (access.errors and (status >= 400 or status == 0 or exchange.note)):
            entry = entry_of(exchange, seconds)
            access.write(EntryOfInstance(**asdict(entry), instance=self.instance) if self.instance else entry)

    def close(self) -> None:
        """Write what waits."""
        self.access_log.flush()

    def traffic_of(self, app_id: str) -> Traffic:
        """The counts of an ExApp, by its lower-cased id."""
        traffic = self.apps.get(app_id)
        if traffic is None:
            if len(self.apps) >= MOST_APPS:
                return self.others
            traffic = self.apps[app_id] = Traffic()
        return traffic

    def _enter_failure(self, exchange: Exchange, seconds: float) -> None:
        if exchange.refused:
            self.refusals[exchange.status] = self.refusals.get(exchange.status, 0) + 1
            self._warn(exchange)
        if self.failed is not None:
            self.failed(exchange, seconds)

    def _warn(self, exchange: Exchange) -> None:
        """Log an error of our own that somebody has to repair: once per cause and ExApp in a minute."""
        status, caller = exchange.status, exchange.caller
        request_id = exchange.request_id.decode("latin-1")
        if status > INTERNAL:
            about = {"app": app, "request_id": request_id} if (app := _app_of(exchange)) else {"request_id": request_id}
            self._warnings.warning("request not served", reason_of(exchange), "", status=status, **about)
        elif status == 401 and caller is not None and caller.asker.credentials.key is Key.WRONG:
            self._warnings.warning(
                "shared key refused", reason_of(exchange), caller.asker.ban_key, fix=KEY_FIX, request_id=request_id
            )


def reason_of(exchange: Exchange) -> str:
    """Why it ended as it did, in full."""
    return exchange.note or (exchange.verdict.reason if exchange.verdict else "")


def entry_of(exchange: Exchange, seconds: float) -> Entry:
    """The line of the access log."""
    head, verdict, caller = exchange.head, exchange.verdict, exchange.caller
    return Entry(
        time=timestamp(),
        request_id=exchange.request_id.decode("latin-1"),
        address=exchange.address,
        peer=exchange.peer,
        counted=caller.asker.ban_key if caller is not None else exchange.address,
        method=head.method.decode("latin-1") if head else "-",
        path=head.path.decode("latin-1") if head else "-",
        app=_app_of(exchange),
        user=verdict.user if isinstance(verdict, Forward) else "",
        verdict=_word_of(verdict),
        status=exchange.status,
        received=exchange.received,
        sent=exchange.sent,
        seconds=seconds,
        first_byte=exchange.began - exchange.started if exchange.began else seconds,
        waits=exchange.waits or {},
        reason=reason_of(exchange),
    )


def _app_of(exchange: Exchange) -> str:
    """The ExApp that was asked for, as the URL spells it; "" where the decision did not come so far."""
    return exchange.verdict.app_id if isinstance(exchange.verdict, Forward) else ""


def _word_of(verdict: Verdict | None) -> str:
    match verdict:
        case Forward():
            return "signed" if verdict.signed else "forward"
        case Control():
            return "control"
        case Engine():
            return "engine"
        case Gateway():
            return "gateway"
        case Refuse():
            return "banned" if verdict.banned else "refuse"
    return ""
