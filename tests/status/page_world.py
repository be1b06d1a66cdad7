"""A status page over facts that a test controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlencode

from harp.frontend.traffic import Traffic
from harp.status.doctor.report import DoctorReport, failed, ok
from harp.status.doors import Doors
from harp.status.engines import EngineLine
from harp.status.feed import RequestFeed
from harp.status.history import History
from harp.status.pages import Page
from harp.status.snapshot import CertificateLine, RunningLine, SettingLine
from harp.status.web.site import Site
from tests.fakes.facts import ENGINE, FakeFacts
from tests.status.test_doors import PASSWORD, READER, Bans
from tests.status.test_feed import FeedWorld

RUNNING = RunningLine("id-9", "GET", "/exapps/hello/sse", "hello", "anna", "192.0.2.1", 75.0, 200, 5)
SETTINGS = [SettingLine("HP_SHARED_KEY", "set, not shown", True), SettingLine("HP_CERTS_DIR", "/certs", False)]


class PageFactsOfTest(FakeFacts):
    """With requests, plots, settings and a doctor."""

    def __init__(self, feed: RequestFeed, history: History) -> None:
        super().__init__()
        self.feed = feed
        self.history = history
        self.made: DoctorReport | None = None
        self.known_engines = [ENGINE]
        self.known_certificates = [CertificateLine("/certs/cert.pem", 1.9e9)]

    def engines(self) -> Sequence[EngineLine]:
        return self.known_engines

    def certificates(self) -> Sequence[CertificateLine]:
        return self.known_certificates

    def running(self, app: str) -> Sequence[RunningLine]:
        return [RUNNING]

    def settings(self) -> Sequence[SettingLine]:
        return SETTINGS

    def report(self) -> DoctorReport | None:
        return self.made

    async def examine_now(self) -> None:
        findings = (ok("a", "this is well"), failed("b", "that is not", "since it broke", "mend it"))
        self.made = DoctorReport(1.7e9, 0.5, "1", "http://cloud", "failed", findings)


class PageWorld:
    """Asks the site as a browser does, from another host unless `local`."""

    def __init__(self) -> None:
        self.requests = FeedWorld()
        self.clock = self.requests.clock
        self.traffic = Traffic()
        self.history = History(lambda: [("hello", self.traffic)], self.clock, self.clock.now)
        self.facts = PageFactsOfTest(self.requests.feed, self.history)
        self.bans = Bans()
        self.doors = Doors(PASSWORD, self.bans, self.clock)
        self.site = Site(self.facts, self.doors)
        self.cookie = ""

    async def ask(
        self, target: str, *, method: str = "GET", form: dict[str, str] | None = None, lines: Iterable[str] = (),
        local: bool = True,
    ) -> Page:  # fmt: skip
        headers = [*lines, *([f"Cookie: harp_admin={self.cookie}"] if self.cookie else [])]
        text = "".join(f"{line}\r\n" for line in headers)
        head = READER.read(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{text}\r\n".encode())
        guest = self.doors.guest_of(head, "127.0.0.1" if local else "192.0.2.1")
        return await self.site.answer(head, guest, urlencode(form or {}).encode())

    async def send(self, path: str, *, local: bool = True, lines: Iterable[str] = (), **form: str) -> Page:
        """Send a form of ours."""
        self.cookie = self.cookie or "visit"
        form["form_token"] = form.get("form_token", self.doors.form_token(self.cookie))
        return await self.ask(path, method="POST", form=form, local=local, lines=lines)

    async def log_in(self) -> None:
        page = await self.send("/login", local=False, password=PASSWORD)
        self.cookie = header(page, "set-cookie").partition("=")[2].partition(";")[0]


def header(page: Page, name: str) -> str:
    """The value of a header of the answer."""
    return next(line.partition(": ")[2] for line in page.lines if line.startswith(f"{name}: "))
