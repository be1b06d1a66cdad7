"""What answers a request for the status page: pages, forms, static files and the streams that keep pages live."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harp import __version__
from harp.status.doors import COOKIE, LIFETIME, Doors, Guest
from harp.status.history import ALL
from harp.status.pages import Page
from harp.status.web.filters import FILTERS, span
from harp.status.web.live import Live
from harp.status.web.views import PageFacts, View, Views
from harp.wire.requests import RequestHead

HERE = Path(__file__).parent
HTML = "text/html; charset=utf-8"
KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
SAFE = (
    f"content-security-policy: {POLICY}",
    "x-content-type-options: nosniff",
    "referrer-policy: same-origin",
    "cross-origin-resource-policy: same-origin",
)
LEVELS = ("debug", "info", "warning", "error")
ACCESS = ("off", "errors", "all")


class Site:
    """Answers every path of the admin listener that nothing else does."""

    def __init__(self, facts: PageFacts, doors: Doors) -> None:
        self._facts = facts
        self._doors = doors
        self._views = Views(facts)
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(FILTERS)
        self._static = {path.name: path.read_bytes() for path in (HERE / "static").iterdir() if path.suffix in KINDS}
        self._tags = {name: sha256(body).hexdigest()[:12] for name, body in self._static.items()}
        self._templates.globals.update(
            asset=self._asset, version=__version__, quoted=_quoted, levels=LEVELS, modes=ACCESS
        )
        self._live = Live(facts, self._look, lambda view: self._rendered("live.html", view))
        self._forms: Mapping[str, Callable[[Guest, dict[str, str]], Awaitable[Page]]] = {
            "/bans/lift": self._lift,
            "/doctor": self._examine,
            "/logs": self._change_logs,
            "/logout": self._log_out,
        }

    async def answer(self, head: RequestHead, guest: Guest, body: bytes) -> Page:
        """Return what answers a request."""
        path = unquote(head.path.decode("latin-1"))
        if head.method == b"POST":
            return await self._posted(head, guest, path, body)
        if head.method not in (b"GET", b"HEAD"):
            return _plain(405, "only GET, HEAD and POST are served", allow="GET, HEAD, POST")
        if path.startswith("/static/"):
            return self._file(path.removeprefix("/static/"), head)
        query = _form(head.query.removeprefix(b"?"))
        if not guest.admitted:
            return self._login_page(guest, path, query)
        if path == "/login":
            return _elsewhere("/")
        if path == "/plot":
            points = self._facts.history.points(query.get("app", ALL))
            return Page(200, msgspec.json.encode(points), lines=SAFE)
        if path == "/live":
            return self._live.page(guest, query.get("path", "/"), query.get("q", ""))
        return self._whole(guest, path, query.get("q", ""), query.get("done", ""))

    # Pages

    def _whole(self, guest: Guest, path: str, search: str, done: str) -> Page:
        cookie = guest.cookie or secrets.token_urlsafe(18)
        view = self._look(msgspec.structs.replace(guest, cookie=cookie), path, search)
        if view is None:
            view = self._views.missing(path)
            view.values.update(guest=guest, form_token=self._doors.form_token(cookie))
        view.values["done"] = done[:200]
        lines = SAFE if guest.cookie else (*SAFE, _cookie(cookie))
        return Page(view.status, self._rendered("page.html", view).encode(), kind=HTML, lines=lines)

    def _look(self, guest: Guest, path: str, search: str) -> View | None:
        """Return what a page shows to this visitor at this moment."""
        view = self._views.view(path, search)
        if view is not None:
            view.values.update(done="", guest=guest, form_token=self._doors.form_token(guest.cookie))
        return view

    def _rendered(self, template: str, view: View) -> str:
        return self._templates.get_template(template).render(view.values)

    def _login_page(self, guest: Guest, path: str, query: Mapping[str, str], wrong: str = "") -> Page:
        if path in ("/live", "/plot"):
            return _plain(401, "log in first")
        cookie = guest.cookie or secrets.token_urlsafe(18)
        values = {"wrong": wrong, "form_token": self._doors.form_token(cookie), "to": path if path != "/login" else "/"}
        body = self._templates.get_template("login.html").render(values).encode()
        lines = SAFE if guest.cookie else (*SAFE, _cookie(cookie))
        return Page(401, body, kind=HTML, lines=lines)

    def _file(self, name: str, head: RequestHead) -> Page:
        body = self._static.get(name)
        if body is None:
            return _plain(404, "no such file")
        tag = f'"{self._tags[name]}"'
        lines = (*SAFE, f"etag: {tag}")
        if head.get(b"if-none-match") == tag.encode():
            return Page(304, b"", kind=KINDS[Path(name).suffix], lines=lines)
        keep = "max-age=31536000, immutable" if head.query == f"?{self._tags[name]}".encode() else "no-cache"
        return Page(200, body, kind=KINDS[Path(name).suffix], lines=lines, keep=keep)

    def _asset(self, name: str) -> str:
        return f"/static/{name}?{self._tags[name]}"

    # Forms

    async def _posted(self, head: RequestHead, guest: Guest, path: str, body: bytes) -> Page:
        form = _form(body)
        foreign = head.get(b"sec-fetch-site") not in (None, b"same-origin", b"none")
        if foreign or not self._doors.is_own_form(guest, form.get("form_token", "")):
            return _plain(403, "this form is not of this page, or too old: go back, reload it, and try again")
        if path == "/login":
            return self._log_in(head, guest, form)
        if not guest.admitted:
            return _elsewhere("/login")
        act = self._forms.get(path)
        return _plain(404, "no such form") if act is None else await act(guest, form)

    def _log_in(self, head: RequestHead, guest: Guest, form: dict[str, str]) -> Page:
        seconds = self._doors.banned_for(guest)
        if seconds:
            return self._login_page(guest, "/", {}, f"Too many wrong passwords: try again in {span(seconds)}.")
        cookie = self._doors.log_in(guest, form.get("password", ""))
        if cookie is None:
            return self._login_page(guest, form.get("to", "/"), {}, "This is not the password.")
        secure = head.get(b"x-forwarded-proto") == b"https"
        return _elsewhere(form.get("to", "/"), _cookie(cookie, secure=secure, seconds=LIFETIME))

    async def _log_out(self, guest: Guest, form: dict[str, str]) -> Page:
        self._doors.log_out(guest)
        return _elsewhere("/", _cookie("", seconds=0))

    async def _lift(self, guest: Guest, form: dict[str, str]) -> Page:
        address = form.get("address", "")
        lifted = self._facts.lift(address, form.get("instance", ""))
        done = f"{address} is served again." if lifted else f"{address} is not banned."
        return _elsewhere(f"/bans?done={quote(done)}")

    async def _examine(self, guest: Guest, form: dict[str, str]) -> Page:
        await self._facts.examine_now()
        return _elsewhere("/doctor")

    async def _change_logs(self, guest: Guest, form: dict[str, str]) -> Page:
        level, access = form.get("level"), form.get("access")
        if level not in LEVELS or access not in ACCESS:
            return _plain(400, "choose one of the levels")
        self._facts.change_logs(level, access)
        return _elsewhere(f"/settings?done={quote(f'Logging at {level} now, requests: {access}.')}")


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _form(data: bytes) -> dict[str, str]:
    """Return the last value of each field."""
    try:
        fields = parse_qs(data.decode("latin-1"), keep_blank_values=True, max_num_fields=32)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}


def _cookie(value: str, *, secure: bool = False, seconds: float | None = None) -> str:
    """Return the header line that sets our cookie."""
    age = "" if seconds is None else f"; Max-Age={seconds:.0f}"
    return f"set-cookie: {COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict{age}{'; Secure' if secure else ''}"


def _elsewhere(path: str, *lines: str) -> Page:
    """See another page of ours."""
    safe = path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"
    target = quote(safe, safe="/?=&%:.-_~")
    return Page(303, b"", kind=HTML, lines=(*SAFE, f"location: {target}", *lines))


def _plain(status: int, text: str, allow: str = "") -> Page:
    return Page(status, f"{text}\n".encode(), kind="text/plain; charset=utf-8", lines=SAFE, allow=allow)
