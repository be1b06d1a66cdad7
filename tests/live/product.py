"""The real product, as `harp run` starts it: environment in, ports and /proc out."""

from __future__ import annotations

import base64
import http.client
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes.environment import bare
from tests.live.processes import PATIENCE, Process, free_port

KEY = "a key of the live tests"
HARP = (sys.executable, "-m", "harp")
WITHOUT_UVLOOP = (
    sys.executable,
    "-c",
    "import sys; sys.modules['uvloop'] = None; from harp.__main__ import main; sys.exit(main())",
)


class Product:
    """One `harp run` with ports and a certificate directory of its own.

    `start` returns as soon as it answers; `stop` and `start` again keep ports and certificates.
    """

    def __init__(self, directory: Path, nextcloud: str, **environment: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.http, self.https, self.frp, self.admin = (free_port() for _ in range(4))
        self.certs = directory / "certs"
        self.certs.mkdir(exist_ok=True)
        self.environment = {
            **bare(),
            "HP_SHARED_KEY": KEY,
            "NC_INSTANCE_URL": nextcloud,
            "HP_EXAPPS_ADDRESS": f"127.0.0.1:{self.http}",
            "HP_EXAPPS_HTTPS_ADDRESS": f"127.0.0.1:{self.https}",
            "HP_FRP_ADDRESS": f"127.0.0.1:{self.frp}",
            "HP_ADMIN_ADDRESS": f"127.0.0.1:{self.admin}",
            "HP_CERTS_DIR": str(self.certs),
            "HP_LOG_LEVEL": os.environ.get("HARP_LIVE_LOG_LEVEL", "info"),
            "HP_LOG_FORMAT": "json",
            "HP_BLACKLIST_COUNT": "0",
            **environment,
        }
        self.secrets = {KEY}  # that must not be in the log
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None, "not started"
        return self._process

    @property
    def started(self) -> bool:
        return self._process is not None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def start(self, command: Sequence[str] = HARP, output: int | None = None) -> float:
        """Start it, or `command` in place of `harp`. Seconds until its first answer."""
        began = time.monotonic()
        self._process = Process([*command, "run"], self.directory / "harp.log", env=self.environment, output=output)
        self._process.until(self.answers, "answer")
        return time.monotonic() - began

    def stop(self, timeout: float = PATIENCE) -> int:
        """End it, by TERM; its exit status. Whatever the test has done, no secret is in the log."""
        status = self.process.stop(timeout)
        text = self.process.text() if self.process.log.exists() else ""
        assert not [secret for secret in self.secrets if secret in text]
        return status

    def answers(self) -> bool:
        """Does the HTTP listener answer a request, whatever it says?"""
        return self.status("/") > 0

    def admin_status(self, page: str) -> int:
        """As `status`, of the admin listener."""
        return self._status(self.admin, page, {})

    def admin_page(self, page: str) -> str:
        """Return the answer of the admin listener to a GET, "" when there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        try:
            connection.request("GET", page)
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return ""
        finally:
            connection.close()

    def told(self, what: str) -> Any:
        """The JSON of /api/v1/`what`, {} without an answer."""
        try:
            return json.loads(self.admin_page(f"/api/v1/{what}"))
        except ValueError:  # none, or it was cut short
            return {}

    def status(self, target: str, **headers: str) -> int:
        """The status of a GET, 0 when there is no answer. In names of headers `_` stands for `-`."""
        return self._status(self.http, target, {name.replace("_", "-"): value for name, value in headers.items()})

    def _status(self, port: int, target: str, headers: dict[str, str]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", target, headers=headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def served(self, path: str) -> list[dict[str, Any]]:
        """The access log's entries of this path; waits until there is one."""

        def entries() -> list[dict[str, Any]]:
            lines = (line for line in self.process.text().splitlines() if line.startswith("{"))
            return [entry for entry in map(json.loads, lines) if entry.get("path") == path]

        self.process.until(lambda: entries() != [], f"access log entry of {path}")
        return entries()

    def register(self, app_id: str, host: str, port: int, **levels: int) -> None:
        """Push a record as AppAPI does (A 4.3). `levels`: route -> access level; none given = all of it PUBLIC."""
        routes = [{"url": f"^/{route}", "access_level": level} for route, level in levels.items()]
        self.secrets.add(f"token of {app_id}")
        body = {
            "exapp_token": f"token of {app_id}",
            "exapp_version": "1.2.3",
            "host": host,
            "port": port,
            "routes": routes or [{"url": ".*", "access_level": 0}],
        }
        self._storage("POST", app_id, json.dumps(body), 204)

    def forget(self, app_id: str) -> None:
        """Withdraw a record, as AppAPI does; Nextcloud may have done so before."""
        self._storage("DELETE", app_id, None, 204, 404)

    def _storage(self, method: str, app_id: str, body: str | None, *statuses: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=5)
        connection.request(method, f"/exapps/app_api/exapp_storage/{app_id}", body, {"harp-shared-key": KEY})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status in statuses, f"{answer.status} {text!r}"


@contextmanager
def running(directory: Path, nextcloud: str, command: Sequence[str] = HARP, **environment: str) -> Iterator[Product]:
    """A product that runs inside the block and has ended, by TERM and with 0, after it."""
    product = Product(directory, nextcloud, **environment)
    product.start(command)
    try:
        yield product
    finally:
        status = product.stop()
    assert status == 0, product.process.text()[-4000:]


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
