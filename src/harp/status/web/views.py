"""What each page shows, gathered from the facts: a template's name and its values."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

from harp.status.doctor.report import DoctorReport
from harp.status.engines import EngineLine
from harp.status.feed import RequestFeed
from harp.status.history import ALL, History
from harp.status.problems import WARNING, problems_of
from harp.status.snapshot import (
    AppLine,
    BanLine,
    OfInstance,
    RequestLine,
    RunningLine,
    SettingLine,
    Snapshot,
    TunnelLine,
)

MOST_ROWS = 200  # of a table; people search in longer ones
SPARK = 120  # samples in a sparkline, ten minutes
MOST_REQUESTS = 25  # of one ExApp, on its page
SHORT = 12  # rows of a table that is one of several on its page

Values = dict[str, object]


class PageFacts(Protocol):
    """What the pages show and change: `harp.facts.HarpFacts`."""

    feed: RequestFeed
    history: History

    def snapshot(self) -> Snapshot:
        """Return everything that is known."""

    def running(self, app: str) -> Sequence[RunningLine]:
        """Return the requests of an ExApp that are not over yet; "" = all."""

    def settings(self) -> Sequence[SettingLine]:
        """Return every variable as it is in effect, without secrets."""

    def report(self) -> DoctorReport | None:
        """Return the doctor's last report; None before the first."""

    async def examine_now(self) -> None:
        """Have the doctor make a report."""

    def lift(self, address: str, instance: str = "") -> bool:
        """End a ban. False if there was none."""

    def change_logs(self, log_level: str | None, access_log: str | None) -> None:
        """Log at another level, and other requests, from now on; None leaves it."""


class View(Struct, frozen=True):
    """One page."""

    path: str
    title: str
    template: str
    values: Values
    status: int = 200
    plot: str | None = None  # whose history the page plots: an ExApp, or ALL


class Menu(Struct, frozen=True):
    """An entry of the navigation."""

    path: str
    title: str
    count: int | None = None


class Views:
    """Makes the pages. All that is shown was gathered at one moment."""

    def __init__(self, facts: PageFacts) -> None:
        self._facts = facts
        self._pages: Mapping[str, Callable[[Snapshot, str], View]] = {
            "/": self._overview,
            "/apps": self._apps,
            "/bans": self._bans,
            "/certificates": self._certificates,
            "/doctor": self._doctor,
            "/engines": self._engines,
            "/members": self._members,
            "/requests": self._requests,
            "/settings": self._settings,
            "/tunnels": self._tunnels,
        }

    def view(self, path: str, search: str) -> View | None:
        """Return the page at a path; `search` narrows its table. None: there is none."""
        snapshot = self._facts.snapshot()
        make = self._pages.get(path)
        if make is not None:
            view = make(snapshot, search)
        elif path.startswith("/apps/"):
            view = self._app(snapshot, path.removeprefix("/apps/"))
        else:
            return None
        return self._completed(view, snapshot, search)

    def missing(self, path: str) -> View:
        """Return the page for a path without one."""
        view = View(path, "Not found", "missing.html", {"missing": path}, 404)
        return self._completed(view, self._facts.snapshot(), "")

    def _completed(self, view: View, snapshot: Snapshot, search: str) -> View:
        """Add what every page shows."""
        now, report = time.time(), self._facts.report()
        problems = problems_of(snapshot, now)
        failed = 0 if report is None else sum(finding.state == "failed" for finding in report.findings)
        view.values.update(
            now=now,
            snapshot=snapshot,
            problems=problems,
            worst=problems[0].level if problems else WARNING if failed else "",
            menu=_menu(snapshot, failed),
            failed=failed,
            search=search,
            view=view,
        )
        return view

    def _overview(self, snapshot: Snapshot, search: str) -> View:
        points = self._facts.history.points(last=SPARK)
        return View(
            "/",
            "Overview",
            "overview.html",
            {
                "apps": _busiest(snapshot.apps)[:SHORT],
                "failures": self._facts.feed.failures()[:SHORT],
                "points": points,
                "sparks": self._sparks(_busiest(snapshot.apps)[:SHORT]),
            },
            plot=ALL,
        )

    def _apps(self, snapshot: Snapshot, search: str) -> View:
        apps = [line for line in _busiest(snapshot.apps) if search.lower() in line.app.lower()]
        shown = apps[:MOST_ROWS]
        return View("/apps", "ExApps", "apps.html", {"apps": shown, "all": len(apps), "sparks": self._sparks(shown)})

    def _app(self, snapshot: Snapshot, app: str) -> View:
        line = next((line for line in snapshot.apps if line.key == app.lower()), None)
        if line is None:
            return View("/apps", "ExApps", "missing.html", {"missing": app}, status=404)
        feed = self._facts.feed
        return View(
            f"/apps/{line.key}",
            line.app,
            "app.html",
            {
                "app": line,
                "points": self._facts.history.points(line.key, SPARK),
                "running": _of_instance(self._facts.running(line.app), line)[:SHORT],
                "recent": _of_instance(feed.recent(line.app), line)[:MOST_REQUESTS],
                "failures": _of_instance(feed.failures(line.app), line)[: SHORT // 2],
                "tunnel": _tunnel_of(snapshot.tunnels, line),
            },
            plot=line.key,
        )

    def _requests(self, snapshot: Snapshot, search: str) -> View:
        feed = self._facts.feed
        recent = [line for line in feed.recent() if _matches(line, search)]
        failures = [line for line in feed.failures() if _matches(line, search)]
        return View(
            "/requests",
            "Requests",
            "requests.html",
            {
                "recent": recent[:100],
                "failures": failures[:100],
                "running": self._facts.running("")[:SHORT],
                "uncounted": feed.uncounted,
            },
        )

    def _tunnels(self, snapshot: Snapshot, search: str) -> View:
        tunnels = [line for line in snapshot.tunnels if any(search.lower() in name.lower() for name in line.names)]
        expected = [line for line in snapshot.apps if line.tunnel == "not connected"]
        values: Values = {"tunnels": tunnels[:MOST_ROWS], "all": len(tunnels), "expected": expected[:MOST_ROWS]}
        return View("/tunnels", "Tunnels", "tunnels.html", values)

    def _engines(self, snapshot: Snapshot, search: str) -> View:
        return View("/engines", "Engines", "engines.html", {"engines": snapshot.engines, "state": _engine_state})

    def _members(self, snapshot: Snapshot, search: str) -> View:
        return View("/members", "Members", "members.html", {"members": snapshot.members})

    def _bans(self, snapshot: Snapshot, search: str) -> View:
        bans: list[BanLine] = [line for line in snapshot.bans if search.lower() in line.address.lower()]
        return View("/bans", "Bans", "bans.html", {"bans": bans[:MOST_ROWS], "all": len(bans)})

    def _certificates(self, snapshot: Snapshot, search: str) -> View:
        certificates = sorted(snapshot.certificates, key=lambda line: line.end)
        return View("/certificates", "Certificates", "certificates.html", {"certificates": certificates})

    def _doctor(self, snapshot: Snapshot, search: str) -> View:
        report = self._facts.report()
        order = ("failed", "warning", "skipped", "ok")
        found = [] if report is None else sorted(report.findings, key=lambda finding: order.index(finding.state))
        return View("/doctor", "Doctor", "doctor.html", {"report": report, "findings": found})

    def _settings(self, snapshot: Snapshot, search: str) -> View:
        lines = [line for line in self._facts.settings() if search.lower() in f"{line.name} {line.text}".lower()]
        return View("/settings", "Settings", "settings.html", {"lines": lines})

    def _sparks(self, apps: Sequence[AppLine]) -> dict[str, list[float]]:
        return {line.key: self._facts.history.points(line.key, SPARK).requests for line in apps}


L = TypeVar("L", bound=OfInstance)


def _of_instance(lines: Sequence[L], app: AppLine) -> list[L]:
    """Return those of the ExApp's own Nextcloud."""
    return [line for line in lines if line.instance == app.instance]


def _busiest(apps: Sequence[AppLine]) -> list[AppLine]:
    """Return those in trouble first, then by what they have served."""
    return sorted(
        apps, key=lambda line: (line.tunnel != "not connected", -sum(line.traffic.statuses.values()), line.app)
    )


def _matches(line: RequestLine, search: str) -> bool:
    text = f"{line.app} {line.path} {line.address} {line.user} {line.status} {line.request_id} {line.reason}"
    return search.lower() in text.lower()


def _tunnel_of(tunnels: Sequence[TunnelLine], app: AppLine) -> TunnelLine | None:
    return next((line for line in tunnels if app.port in line.ports and line.instance == app.instance), None)


def _engine_state(line: EngineLine) -> str:
    if line.last_seen is None:
        return "not asked yet" if not line.trouble else "never answered"
    return "does not answer" if line.trouble else "answers"


def _menu(snapshot: Snapshot, failed: int) -> list[Menu]:
    members = [Menu("/members", "Members", len(snapshot.members))] if snapshot.members else []
    return [
        Menu("/", "Overview"),
        Menu("/apps", "ExApps", len(snapshot.apps)),
        Menu("/requests", "Requests"),
        Menu("/tunnels", "Tunnels", len(snapshot.tunnels)),
        Menu("/engines", "Engines", len(snapshot.engines)),
        *members,
        Menu("/bans", "Bans", snapshot.ban_totals.now),
        Menu("/certificates", "Certificates", len(snapshot.certificates)),
        Menu("/doctor", "Doctor", failed),
        Menu("/settings", "Settings"),
    ]
