"""For tests of ExApps: a Nextcloud stand-in and a real HaRP that run beside the test, in a thread of their own.

def test_a_page_through_harp(harp: HarpForTests) -> None:
    app = harp.register("myapp", routes=["^/page$"])
    with my_app_started(app.environment):  # what AppAPI puts into the container, `harp exapp` or start.sh included
        harp.wait_for_tunnel(app)
        harp.enable(app)
        assert urlopen(f"{app.url}/page").status == 200

The fixture `harp` comes with the package; without pytest use `HarpForTests` as a context manager.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import secrets
import socket
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from harp.app import Harp
from harp.errors import HarpError
from harp.loops import event_loop
from harp.policy.exapp import ExApp, Level, Route
from harp.policy.ports import EXAPP_PORTS
from harp.settings import load
from harp.testing.nextcloud import NextcloudStandIn
from harp.testing.ocs import LogLine, OcsCall

__all__ = ["Answer", "HarpForTests", "Level", "LogLine", "OcsCall", "RegisteredApp", "Route"]

T = TypeVar("T")
AA_VERSION = "32.0.0"
PATIENCE = 20.0  # seconds for anything that should take a moment
HEARTBEAT = 2.0  # seconds until an ExApp that gives no heartbeat is asked again
CALL = 60.0  # seconds AppAPI waits for an ExApp to be enabled (A 6.5)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        """Return the body, decoded. Raises ValueError when it is not JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class RegisteredApp:
    """An ExApp that the stand-in knows."""

    app_id: str
    version: str
    port: int  # of the tunnel, or the TCP port of an app that is deployed directly
    url: str  # of its pages, through HaRP
    socket: Path  # where an app behind a tunnel listens: HP_EXAPP_SOCK
    environment: dict[str, str] = field(repr=False)  # what AppAPI puts into its container (A 6.3)
    signed: dict[str, str] = field(repr=False)  # headers of a call by AppAPI itself (A 6.1); every path is open to it


class HarpForTests:
    """A HaRP and its Nextcloud. Everything listens on loopback, on free ports; nothing outlives the block.

    The stand-in's users are admin:admin and user:user. The tunnel has no TLS, as with HP_FRP_DISABLE_TLS. HaRP's log
    goes to standard output, which pytest shows when a test fails. It has many methods: everything that Nextcloud,
    AppAPI and a browser do in a test.
    """

    def __init__(self) -> None:
        self.key = secrets.token_urlsafe(24)
        self._nextcloud = NextcloudStandIn(self.key)
        self._apps: dict[str, RegisteredApp] = {}
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._serve, name="harp", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._loop = self._started.result(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._told.set)
        self._thread.join(PATIENCE)

    @property
    def url(self) -> str:
        """HaRP, without trailing "/"; an ExApp's pages begin at /exapps/<app id>."""
        return f"http://127.0.0.1:{self._harp.http_ports[0]}"

    @property
    def nextcloud_url(self) -> str:
        """The stand-in, without trailing "/"."""
        return self._nextcloud.url

    @property
    def progress(self) -> dict[str, list[int]]:
        """By app id: the progress that the app has reported while initialising."""
        return self._nextcloud.ocs.progress

    @property
    def logs(self) -> list[LogLine]:
        """The lines that apps have written into Nextcloud's log."""
        return self._nextcloud.ocs.logs

    @property
    def calls(self) -> list[OcsCall]:
        """The OCS calls that apps have made."""
        return self._nextcloud.ocs.calls

    def ocs(self, method: str, path: str, data: Any) -> None:
        """Answer an OCS call of apps with `data`, or with what `data(call)` returns: `path` is below /ocs/v1.php.

        Calls for users, capabilities, the log, preferences and the app's configuration are answered already; all others
        are an OCS 404 until a test adds them.
        """
        self._nextcloud.ocs.answer(method, path, data)

    def register(
        self,
        app_id: str,
        *,
        routes: Sequence[str | Route] = (".*",),
        version: str = "1.0.0",
        direct_port: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> RegisteredApp:
        """Register an ExApp in Nextcloud. A route that is only a pattern is PUBLIC.

        `direct_port`: the app listens on 127.0.0.1 itself and needs no tunnel. `environment`: the variables that the
        app's info.xml declares.
        """
        port = direct_port or self._free_port()
        secret = secrets.token_urlsafe(24)
        path = self._directory / f"{app_id}.sock"
        variables = {
            "AA_VERSION": AA_VERSION,
            "APP_SECRET": secret,
            "APP_ID": app_id,
            "APP_DISPLAY_NAME": app_id,
            "APP_VERSION": version,
            "APP_HOST": "127.0.0.1",
            "APP_PORT": str(port),
            "APP_PERSISTENT_STORAGE": str(self._directory / f"nc_app_{app_id}_data"),
            "NEXTCLOUD_URL": self.nextcloud_url,
            "COMPUTE_DEVICE": "CPU",
            **(environment or {}),
        }
        if direct_port is None:
            variables |= {
                "HP_FRP_ADDRESS": "127.0.0.1",
                "HP_FRP_PORT": str(self._harp.frp_ports[0]),
                "HP_SHARED_KEY": self.key,
                "HP_EXAPP_SOCK": str(path),
            }
        (self._directory / f"nc_app_{app_id}_data").mkdir(exist_ok=True)
        app = RegisteredApp(
            app_id,
            version,
            port,
            f"{self.url}/exapps/{app_id}",
            path,
            variables,
            self._signed(app_id, version, secret, port),
        )
        levels = tuple(Route(route, Level.PUBLIC) if isinstance(route, str) else route for route in routes)
        self._apps[app_id] = app
        self._in_loop(self._know(ExApp(app_id.lower(), secret, version, "127.0.0.1", port, levels)))
        return app

    def forget(self, app: RegisteredApp) -> None:
        """Unregister an ExApp, in Nextcloud and in HaRP."""
        self._apps.pop(app.app_id, None)
        self._in_loop(self._unknow(app.app_id))

    def wait_for_tunnel(self, app: RegisteredApp, seconds: float = PATIENCE) -> None:
        """Wait until the app's tunnel client has connected. Raises TimeoutError."""
        try:
            self._in_loop(self._harp.ports.wait(app.port, seconds), seconds + 1)
        except HarpError as error:
            raise TimeoutError(f"no tunnel of {app.app_id} within {seconds:g} s") from error

    def log_in(self, user: str) -> str:
        """Return the `Cookie` header of a browser in which `user` has logged in."""
        return self._nextcloud.log_in(user)

    def get(self, app: RegisteredApp, path: str, *, headers: dict[str, str] | None = None) -> Answer:
        """Return the response to a browser that requests a page of the app: `path` begins with "/"."""
        return self._request("GET", app, path, headers or {})

    # What AppAPI does (A 6.4-6.6).

    def heartbeat(self, app: RegisteredApp) -> bool:
        """Return whether the app reports that it is alive."""
        try:
            answer = self._request("GET", app, "/heartbeat", app.signed, HEARTBEAT)
        except TimeoutError:
            return False
        return answer.status == 200 and answer.json().get("status") == "ok"

    def until_heartbeat(self, app: RegisteredApp, seconds: float = PATIENCE) -> bool:
        """Poll until there is a heartbeat; return False if there is none within `seconds`."""
        end = time.monotonic() + seconds
        while not self.heartbeat(app):
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        return True

    def init(self, app: RegisteredApp) -> int:
        """Let the app initialise itself, and return the status. What it reports is then in `progress`."""
        return self._request("POST", app, "/init", app.signed).status

    def enable(self, app: RegisteredApp) -> str:
        """Enable the app and return its error text, "" if there is none. A status other than 200 is an error, too."""
        return self._enabled(app, "1")

    def disable(self, app: RegisteredApp) -> str:
        """Disable the app and return its error text, as `enable` does."""
        return self._enabled(app, "0")

    def _enabled(self, app: RegisteredApp, value: str) -> str:
        answer = self._request("PUT", app, f"/enabled?enabled={value}", app.signed)
        return str(answer.json()["error"]) if answer.status == 200 else f"status {answer.status}"

    def _request(
        self, method: str, app: RegisteredApp, path: str, headers: dict[str, str], seconds: float = CALL
    ) -> Answer:
        place = urlsplit(app.url)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=seconds)
        try:
            connection.request(method, place.path + path, headers=headers)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def _signed(self, app_id: str, version: str, secret: str, port: int) -> dict[str, str]:
        return {
            "AA-VERSION": AA_VERSION,
            "EX-APP-ID": app_id,
            "EX-APP-VERSION": version,
            "AUTHORIZATION-APP-API": base64.b64encode(f":{secret}".encode()).decode(),
            "AA-REQUEST-ID": "CLI",
            "harp-shared-key": self.key,
            "ex-app-host": "127.0.0.1",
            "ex-app-port": str(port),
        }

    def free_tcp_port(self) -> int:
        """Return a port on 127.0.0.1 that nobody listens on, for `direct_port`."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return int(listener.getsockname()[1])

    def _free_port(self) -> int:
        taken = {app.port for app in self._apps.values()}
        return next(port for port in EXAPP_PORTS if port not in taken)

    # In the thread.

    def _serve(self) -> None:
        try:
            with TemporaryDirectory(prefix="harp-") as directory, asyncio.Runner(loop_factory=event_loop()) as runner:
                self._directory = Path(directory)
                runner.run(self._run())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _run(self) -> None:
        self._told = asyncio.Event()
        async with self._nextcloud:
            self._harp = Harp(
                load(
                    {
                        "HP_SHARED_KEY": self.key,
                        "NC_INSTANCE_URL": self._nextcloud.url,
                        "HP_EXAPPS_ADDRESS": "127.0.0.1:0",
                        "HP_FRP_ADDRESS": "127.0.0.1:0",
                        "HP_ADMIN_ADDRESS": f"unix:{self._directory / 'admin.sock'}",
                        "HP_FRP_DISABLE_TLS": "true",
                        "HP_CERTS_DIR": str(self._directory),
                        "HP_RECORD_LIFETIME": "1",
                        "HP_BLACKLIST_COUNT": "0",
                        "HP_TUNNEL_HOLD": "200ms",
                        "HP_TIMEOUT_DRAIN": "0",
                    }
                )
            )
            await self._harp.start()
            self._started.set_result(asyncio.get_running_loop())
            await self._told.wait()
            await self._harp.stop()

    def _in_loop(self, work: Coroutine[Any, Any, T], seconds: float = PATIENCE) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    async def _know(self, app: ExApp) -> None:
        self._nextcloud.register(app)
        self._harp.instance.put(app)

    async def _unknow(self, app_id: str) -> None:
        self._nextcloud.forget(app_id)
        self._harp.instance.delete(app_id)
