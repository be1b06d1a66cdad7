"""The part of Nextcloud's OCS API that ExApps call, for their tests: users, capabilities, log, preferences.

Everything else is an OCS 404, as for an app that is not installed; a test adds what its app needs with `answer`. Calls
are made as an ExApp makes them: with its id and secret, in the name of a user or of nobody.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from harp.policy.exapp import ExApp, Level

VERSION = {"major": 32, "minor": 0, "micro": 0, "string": "32.0.0", "edition": "", "extendedSupport": False}
APPAPI = "/apps/app_api/api/v1"
OK, UNAUTHORISED, NOT_FOUND, BAD = 100, 997, 404, 400
MOST_LOGS = 10_000
STORES = {f"{APPAPI}/ex-app/config": "config", f"{APPAPI}/ex-app/preference": "preference"}


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that an ExApp wrote into Nextcloud's log."""

    app_id: str
    level: int  # 0 debug, 1 info, 2 warning, 3 error, 4 fatal
    message: str


@dataclass(frozen=True, slots=True)
class OcsCall:
    """One call, as it arrived."""

    method: str
    path: str  # below /ocs/v1.php or /ocs/v2.php
    app_id: str
    user: str  # in whose name; "" = nobody
    query: Mapping[str, str]
    body: Any = field(repr=False)  # decoded JSON or form; None = none


class KnownAccount(Protocol):
    """A user of the stand-in."""

    level: Level
    enabled: bool


class OcsFailure(Exception):
    """An error instead of data."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


Answerer = Callable[[OcsCall], Any]


class Ocs:
    """Answers OCS calls of ExApps."""

    def __init__(self, apps: Mapping[str, ExApp], users: Mapping[str, KnownAccount]) -> None:
        """`apps` by their lower-cased id."""
        self._apps = apps
        self._users = users
        self._own: dict[tuple[str, str], Any] = {}
        self._values: dict[tuple[str, str, str], dict[str, str]] = {}  # store, app and user -> key -> value
        self.logs: list[LogLine] = []
        self.calls: list[OcsCall] = []
        self.progress: dict[str, list[int]] = {}  # by app id: what it has reported of its initialisation
        self._answers: dict[tuple[str, str], Answerer] = {
            ("GET", "/cloud/capabilities"): self._capabilities,
            ("GET", "/cloud/user"): lambda call: self._user(call.user),
            ("GET", "/cloud/users"): lambda call: {"users": self._named(call.query.get("search", ""))},
            ("GET", f"{APPAPI}/users"): lambda call: list(self._users),
            ("POST", f"{APPAPI}/log"): self._log,
            ("GET", "/apps/app_api/ex-app/state"): lambda call: 1,
            ("PUT", "/apps/app_api/ex-app/status"): self._status,
        }

    def answer(self, method: str, path: str, data: Any) -> None:
        """Answer a call with `data` from now on, or with what `data(call)` returns. `path` is below /ocs/v1.php."""
        self._own[method.upper(), path] = data

    async def serve(self, request: web.Request) -> web.Response:
        """Return the handler for everything below /ocs."""
        path = request.match_info["path"]
        try:
            app = self._caller(request)
            call = OcsCall(
                request.method, path, app.app_id, self._impersonated(request), dict(request.query), await _body(request)
            )
            self.calls = [*self.calls[-MOST_LOGS:], call]
            data, code, message = self._data(call), OK, "OK"
        except OcsFailure as failure:
            data, code, message = [], failure.code, str(failure)
        meta = {"status": "ok" if code == OK else "failure", "statuscode": code, "message": message}
        status = {OK: 200, UNAUTHORISED: 401}.get(code, code)
        return web.json_response({"ocs": {"meta": meta, "data": data}}, status=status)

    def _data(self, call: OcsCall) -> Any:
        own = self._own.get((call.method, call.path))
        if own is not None:
            return own(call) if callable(own) else own
        answer = self._answers.get((call.method, call.path))
        if answer is not None:
            return answer(call)
        base = call.path.removesuffix("/get-values")
        if base in STORES:
            return self._store(STORES[base], call, read=base != call.path)
        if call.method == "GET" and call.path.startswith("/cloud/users/"):
            return self._user(call.path.removeprefix("/cloud/users/"))
        raise OcsFailure(NOT_FOUND, f"no stand-in for {call.method} {call.path}: harp.ocs(...) adds one")

    def _caller(self, request: web.Request) -> ExApp:
        app = self._apps.get(request.headers.get("EX-APP-ID", "").lower())
        if app is None or not hmac.compare_digest(_credentials(request)[1].encode(), app.token.encode()):
            raise OcsFailure(UNAUTHORISED, "the ExApp is not registered, or its secret is wrong")
        return app

    def _impersonated(self, request: web.Request) -> str:
        user = _credentials(request)[0]
        if user and user not in self._users:
            raise OcsFailure(UNAUTHORISED, f"there is no user {user}")
        return user

    def _capabilities(self, call: OcsCall) -> Any:
        app_api = {"loglevel": 0, "version": "32.0.0"}
        return {"version": VERSION, "capabilities": {"core": {"pollinterval": 60}, "app_api": app_api}}

    def _named(self, search: str) -> list[str]:
        return [name for name in self._users if search.lower() in name.lower()]

    def _user(self, name: str) -> Any:
        account = self._users.get(name)
        if account is None:
            raise OcsFailure(NOT_FOUND, "there is no such user" if name else "the call is in nobody's name")
        groups = ["admin"] if account.level >= Level.ADMIN else []
        names = {"id": name, "displayname": name, "display-name": name, "email": f"{name}@example.com"}
        more = {"enabled": account.enabled, "groups": groups, "language": "en", "locale": "en", "quota": {}}
        return {**names, **more, "lastLogin": 0, "backend": "Database", "subadmin": [], "storageLocation": ""}

    def _log(self, call: OcsCall) -> Any:
        line = LogLine(call.app_id, int(_field(call, "level")), str(_field(call, "message")))
        self.logs = [*self.logs[-MOST_LOGS:], line]
        return []

    def _status(self, call: OcsCall) -> Any:
        self.progress.setdefault(call.app_id, []).append(int(_field(call, "progress")))
        return []

    def _store(self, store: str, call: OcsCall, *, read: bool) -> Any:
        """Values of an ExApp, or of a user for it; as Nextcloud, all are text."""
        user = call.user if store == "preference" else ""
        values = self._values.setdefault((store, call.app_id, user), {})
        if read:
            keys = [str(key) for key in _field(call, "configKeys")]
            return [{"configkey": key, "configvalue": values[key]} for key in keys if key in values]
        if call.method == "POST":
            key, value = str(_field(call, "configKey")), str(_field(call, "configValue"))
            values[key] = value
            return {"configkey": key, "configvalue": value}
        if call.method == "DELETE":
            gone = [values.pop(str(key), None) for key in _field(call, "configKeys")]
            if all(value is None for value in gone):
                raise OcsFailure(NOT_FOUND, "none of these keys exists")
            return len([value for value in gone if value is not None])
        raise OcsFailure(NOT_FOUND, f"values are not changed by {call.method}")


def _credentials(request: web.Request) -> tuple[str, str]:
    """User and secret of AUTHORIZATION-APP-API; ("", "") without any."""
    try:
        text = b64decode(request.headers.get("AUTHORIZATION-APP-API", "")).decode()
    except (Base64Error, UnicodeDecodeError):
        return "", ""
    user, _, secret = text.rpartition(":")
    return user, secret


async def _body(request: web.Request) -> Any:
    data = await request.read()
    if not data:
        return None
    if "json" in request.content_type:
        try:
            return json.loads(data)
        except ValueError as error:
            raise OcsFailure(BAD, "the body is not JSON") from error
    return dict(await request.post())


def _field(call: OcsCall, name: str) -> Any:
    """Return a field of the body."""
    if not isinstance(call.body, dict) or name not in call.body:
        raise OcsFailure(BAD, f"{name} is missing")
    return call.body[name]
