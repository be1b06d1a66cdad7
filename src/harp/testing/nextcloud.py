"""A stand-in for Nextcloud: the calls of HaRP (A 5) and of ExApps, a login form, and switches for failures.

async with NextcloudStandIn("the shared key") as nextcloud:
    nextcloud.register(ExApp("hello", token="...", version="1.0.0", host="127.0.0.1", port=23000))
    ...  # NC_INSTANCE_URL=nextcloud.url
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from harp.policy.exapp import ExApp, Level
from harp.testing.ocs import Ocs
from harp.testing.serving import Served

PASSPHRASE_COOKIE: Final = "oc_sessionPassphrase"  # the cookie that makes HaRP ask who is calling (A 2.1)
SESSION_COOKIE: Final = "ocdemo"  # a real Nextcloud calls it by its instance id
REMEMBERED_REQUESTS: Final = 1000
KEY_REFUSED: Final = {"message": "Harp shared key is not valid"}
NOT_LOGGED_IN: Final = {"message": "Current user is not logged in"}
LOGIN_PAGE: Final = """<!doctype html><title>Nextcloud stand-in</title>
<form method="post"><p><input name="user" placeholder="user or admin"> <input name="password" type="password">
<button>Log in</button></p></form>
"""


@dataclass(slots=True)
class Account:
    """An account. A disabled one keeps its id and loses its level (A 5.2)."""

    password: str = field(repr=False)
    level: Level
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """A call as it arrived; `headers` in order, names in lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)

    def values(self, name: str) -> list[str]:
        """Return every value of the header `name` (lower case)."""
        return [value for header, value in self.headers if header == name]


def demo_users() -> dict[str, Account]:
    """admin:admin and user:user."""
    return {"admin": Account("admin", Level.ADMIN), "user": Account("user", Level.USER)}


class NextcloudStandIn(Served):
    """Answers exapp-meta and user-info as a Nextcloud with AppAPI does.

    Credentials are Basic (user and password) or the two cookies that `POST /login` sets.
    """

    def __init__(
        self, shared_key: str, users: Mapping[str, Account] | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        super().__init__(host=host, port=port)
        self._shared_key = shared_key
        self.users = dict(demo_users() if users is None else users)
        self.apps: dict[str, ExApp] = {}  # by lower-cased id
        self.ocs = Ocs(self.apps, self.users)
        self.sessions: dict[tuple[str, str], str] = {}  # the values of both cookies -> user id
        self.calls: Counter[str] = Counter()  # "exapp-meta" and "user-info", refused ones included
        self.requests: deque[Request] = deque(maxlen=REMEMBERED_REQUESTS)
        # Trouble, for every call from the moment it is set:
        self.down = False  # connections break without an answer
        self.slow = 0.0  # seconds before each answer
        self.status: int | None = None  # answered instead of the real answer, such as 503 or 429
        self.body = b""  # of that answer; with status 200 a body that is not JSON is possible

    def register(self, app: ExApp) -> None:
        """Register `app`, replacing one with the same id."""
        self.apps[app.app_id.lower()] = app

    def forget(self, app_id: str) -> None:
        """Forget the app; fine if it was unknown."""
        self.apps.pop(app_id.lower(), None)

    def log_in(self, user: str) -> str:
        """Open a session for `user` and return the `Cookie` header of its browser."""
        values = secrets.token_urlsafe(24), secrets.token_urlsafe(16)
        self.sessions[values] = user
        return f"{PASSPHRASE_COOKIE}={values[0]}; {SESSION_COOKIE}={values[1]}"

    def log_out(self, user: str) -> None:
        """End every session of `user`."""
        self.sessions = {values: owner for values, owner in self.sessions.items() if owner != user}

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._watch])
        base = "/index.php/apps/app_api/harp"
        application.router.add_get(f"{base}/exapp-meta", self._exapp_meta, allow_head=False)
        application.router.add_get(f"{base}/user-info", self._user_info, allow_head=False)
        application.router.add_route("*", "/ocs/v{number:[12]}.php{path:/.*}", self.ocs.serve)
        application.router.add_get("/login", self._login_page)
        application.router.add_post("/login", self._login)
        return application

    @web.middleware
    async def _watch(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Record and count the request, then cause the failures that are switched on."""
        headers = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.raw_headers)
        self.requests.append(Request(request.method, request.raw_path, tuple(headers)))
        if "/apps/app_api/harp/" in request.path:
            self.calls[request.path.rpartition("/")[2]] += 1
        if self.slow:
            await asyncio.sleep(self.slow)
        if self.down and request.transport is not None:
            request.transport.close()
        if self.status is not None:
            return web.Response(status=self.status, body=self.body, content_type="application/json")
        return await handler(request)

    def _app(self, request: web.Request) -> ExApp | None:
        """Return the app that is asked for, None if unknown or if the key is wrong: the answer does not say which."""
        key = request.headers.get("harp-shared-key", "")
        if not hmac.compare_digest(key.encode(errors="surrogateescape"), self._shared_key.encode()):
            return None
        return self.apps.get(request.query.get("appId", "").lower())

    async def _exapp_meta(self, request: web.Request) -> web.Response:
        app = self._app(request)
        if app is None:
            return web.json_response(KEY_REFUSED, status=401)
        return web.json_response(
            {
                "exapp_token": app.token,
                "exapp_version": app.version,
                "host": app.host,
                "port": app.port,
                "routes": [
                    {
                        "url": route.url,
                        "access_level": int(route.access_level),
                        "bruteforce_protection": sorted(route.bruteforce_protection),
                    }
                    for route in app.routes
                ],
            }
        )

    async def _user_info(self, request: web.Request) -> web.Response:
        try:
            user_id = self._basic_user(request) or self._session_user(request)
        except PermissionError:
            return web.json_response(NOT_LOGGED_IN, status=401)
        if self._app(request) is None:
            return web.json_response(KEY_REFUSED, status=401)
        user = self.users.get(user_id)
        level = user.level if user is not None and user.enabled else Level.PUBLIC
        return web.json_response({"user_id": user_id, "access_level": int(level)})

    def _basic_user(self, request: web.Request) -> str:
        """Return the user of the Basic credentials, "" without any. Raises PermissionError when they are wrong."""
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return ""
        try:
            name, _, password = b64decode(encoded.strip()).decode().partition(":")
        except (Base64Error, UnicodeDecodeError):
            raise PermissionError from None
        self._check(name, password)
        return name

    def _check(self, name: str, password: str) -> None:
        user = self.users.get(name)
        if user is None or not hmac.compare_digest(user.password.encode(), password.encode()):
            raise PermissionError

    def _session_user(self, request: web.Request) -> str:
        """Return the user of the cookies' session, "" without one. An ended session is not an error: it is nobody."""
        values = request.cookies.get(PASSPHRASE_COOKIE, ""), request.cookies.get(SESSION_COOKIE, "")
        return self.sessions.get(values, "")

    async def _login_page(self, request: web.Request) -> web.Response:
        return web.Response(text=LOGIN_PAGE, content_type="text/html")

    async def _login(self, request: web.Request) -> web.Response:
        form = await request.post()
        name, password = str(form.get("user", "")), str(form.get("password", ""))
        try:
            self._check(name, password)
        except PermissionError:
            return web.Response(status=401, text="Wrong login or password\n")
        response = web.Response(text=f"Logged in as {name}\n")
        for cookie in self.log_in(name).split("; "):
            cookie_name, _, value = cookie.partition("=")
            response.set_cookie(cookie_name, value, httponly=True, samesite="Lax")
        return response
