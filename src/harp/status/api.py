"""The admin API, version 1: facts as JSON, and the few things that may be changed while HaRP runs.

Everyone who can reach the admin listener may read. Changing takes a connection from this host, and a header that no
script of a web page can send: names that begin with `Sec-` are the browser's own (Fetch standard, "forbidden
request-header").
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import cache
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import parse_qs, unquote

import msgspec

from harp.engines.facts import ClusterStatus
from harp.status.engines import EngineLine
from harp.status.pages import Page
from harp.status.problems import problems_of
from harp.status.snapshot import (
    AppLine,
    BanLine,
    CertificateLine,
    MemberLine,
    OfInstance,
    Process,
    RequestLines,
    Snapshot,
    TunnelLine,
)

PREFIX = "/api/v1/"
CHANGING = b"sec-harp-admin"  # its value does not matter
LEVELS = ("debug", "info", "warning", "error")
ACCESS = ("off", "errors", "all")


class ApiFacts(Protocol):
    """What the API shows and changes: `harp.facts.HarpFacts`."""

    def apps(self) -> Sequence[AppLine]:
        """Return every ExApp that is known."""

    def tunnels(self) -> Sequence[TunnelLine]:
        """Return every tunnel that is connected."""

    def engines(self) -> Sequence[EngineLine]:
        """Return every engine that was used or has a tunnel."""

    def cluster(self) -> ClusterStatus | None:
        """Return the Kubernetes cluster, None where there is none."""

    def bans(self) -> Sequence[BanLine]:
        """Return every ban now."""

    def members(self) -> Sequence[MemberLine]:
        """Return every process of this HaRP; none where there is one."""

    def certificates(self) -> Sequence[CertificateLine]:
        """Return every certificate in use."""

    def process(self) -> Process:
        """Return the process itself."""

    def snapshot(self) -> Snapshot:
        """Return all of it."""

    def requests(self, app: str) -> RequestLines:
        """Return the last requests of an ExApp, or all."""

    def follow(self, app: str) -> AsyncIterator[bytes]:
        """Yield its requests as they end, as server-sent events."""

    def end_engine(self, name: str, instance: str = "") -> int:
        """End the tunnels of an engine, of one Nextcloud or all; how many there were."""

    def lift(self, address: str, instance: str = "") -> bool:
        """End a ban, of one Nextcloud or all. False if there was none."""

    def change_logs(self, log_level: str | None, access_log: str | None) -> None:
        """Log at another level, and other requests, from now on; None leaves it."""


class StatusApi:
    """Answers the requests below PREFIX."""

    def __init__(self, facts: ApiFacts) -> None:
        self._facts = facts
        self._lists: Mapping[str, Callable[[], Sequence[OfInstance]]] = {
            "apps": facts.apps,
            "bans": facts.bans,
            "engines": facts.engines,
            "tunnels": facts.tunnels,
        }
        self._shown: Mapping[str, Callable[[], object]] = {
            "certificates": lambda: {"certificates": facts.certificates()},
            "cluster": lambda: {"cluster": facts.cluster()},
            "members": lambda: {"members": facts.members()},
            "problems": lambda: {"problems": problems_of(facts.snapshot(), time.time())},
            "process": facts.process,
            "snapshot": facts.snapshot,
        }

    def answer(self, method: bytes, path: bytes, query: bytes, *, refused: str) -> Page:
        """`path` begins with PREFIX. `refused` says why this caller may not change anything, "" when it may."""
        rest = path.decode("latin-1").removeprefix(PREFIX)
        wishes = parse_qs(query.decode("latin-1").removeprefix("?"), keep_blank_values=True)
        instance = wishes.get("instance", [""])[-1]
        if rest in self._shown or rest in self._lists:
            if method not in (b"GET", b"HEAD"):
                return _trouble(405, "only GET and HEAD are served", "GET, HEAD")
            return Page(200, msgspec.json.encode(self._show(rest, instance)))
        if rest in ("requests", "requests/follow", "openapi.json"):
            if method not in (b"GET", b"HEAD"):
                return _trouble(405, "only GET and HEAD are served", "GET, HEAD")
            return self._requests(query, follow=rest != "requests") if rest != "openapi.json" else _description()
        if rest.startswith("bans/"):
            if method != b"DELETE":
                return _trouble(405, "a ban can be lifted, with DELETE", "DELETE")
            return _trouble(403, refused) if refused else self._lift(unquote(rest.removeprefix("bans/")), instance)
        if rest.startswith("engines/"):
            if method != b"DELETE":
                return _trouble(405, "the tunnel of an engine can be ended, with DELETE", "DELETE")
            name = unquote(rest.removeprefix("engines/"))
            return _trouble(403, refused) if refused else self._end_engine(name, instance)
        if rest == "logs":
            if method != b"PUT":
                return _trouble(405, "logs can be changed, with PUT", "PUT")
            return _trouble(403, refused) if refused else self._change_logs(wishes)
        more = (
            "bans/ADDRESS",
            "doctor",
            "engines/NAME",
            "logs",
            "openapi.json",
            "requests",
            "requests/follow",
            "upgrade",
        )
        return _trouble(404, f"{PREFIX} has {', '.join(sorted((*self._shown, *self._lists, *more)))}")

    def _requests(self, query: bytes, *, follow: bool) -> Page:
        app = parse_qs(query.decode("latin-1").removeprefix("?")).get("app", [""])[-1]
        if follow:
            return Page(200, b"", kind="text/event-stream", stream=self._facts.follow(app))
        return Page(200, msgspec.json.encode(self._facts.requests(app)))

    def _show(self, what: str, instance: str) -> object:
        """Return the answer to a GET; lists are of one Nextcloud where `instance` names it."""
        if what in self._shown:
            return self._shown[what]()
        return {what: [line for line in self._lists[what]() if instance in ("", line.instance)]}

    def _end_engine(self, name: str, instance: str) -> Page:
        return Page(200, msgspec.json.encode({"ended": self._facts.end_engine(name, instance)}))

    def _lift(self, address: str, instance: str) -> Page:
        if not self._facts.lift(address, instance):
            return _trouble(404, f"{address} is not banned" + (f" by {instance}" if instance else ""))
        return Page(200, msgspec.json.encode({"lifted": address}))

    def _change_logs(self, wishes: Mapping[str, list[str]]) -> Page:
        for name, values in wishes.items():
            known = {"level": LEVELS, "access": ACCESS}.get(name)
            if known is None:
                return _trouble(400, f"{name} is not known; give level or access")
            if values[-1] not in known:
                return _trouble(400, f"{name} is one of {', '.join(known)}")
        level, access = (wishes[name][-1] if name in wishes else None for name in ("level", "access"))
        self._facts.change_logs(level, access)
        process = self._facts.process()
        return Page(200, msgspec.json.encode({"level": process.log_level, "access": process.access_log}))


@cache
def _description() -> Page:
    from harp.status.openapi import document  # noqa: PLC0415 - few ask for it

    return Page(200, msgspec.json.encode(document()))


def objection_to_changes(peer: str, header: bytes | None) -> str:
    """Return why a caller from `peer` ("" on a unix socket), with that value of the header, may not change anything.

    Or "".
    """
    try:
        here = not peer or ip_address(peer.partition("%")[0]).is_loopback
    except ValueError:
        here = False
    if not here:
        return "changes are made from this host only: over loopback or a unix socket"
    return "" if header else f"a change needs the header {CHANGING.decode()}, which web pages cannot send"


def _trouble(status: int, reason: str, allow: str = "") -> Page:
    return Page(status, msgspec.json.encode({"error": reason}), allow=allow)
