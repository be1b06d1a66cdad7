"""The admin API as commands use it."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import quote

from harp.commands.arguments import chosen
from harp.commands.health import connect
from harp.errors import HarpError, SettingsError, Unreachable, words_of
from harp.settings import Settings, examine
from harp.wire.decoding import decoded

T = TypeVar("T")
PATIENCE = 10.0  # seconds for an answer
EXAMINATION = 80.0  # seconds for the doctor's report
UPGRADE = 90.0  # seconds for a new version to serve
SILENCE = 60.0  # seconds without anything on a stream that shows every 15 s that it lives
CHANGING = {"Sec-Harp-Admin": "harp"}  # see status.api


class CallRefused(HarpError):
    """The running HaRP does not do what it was asked; the text is its own."""


class Admin:
    """Calls the HaRP that runs with these settings. Those of one of several Nextclouds ask about that one."""

    def __init__(self, settings: Settings) -> None:
        self._address = settings.listen.admin[0]
        self._about = f"?instance={quote(settings.instance, safe='')}" if settings.instance else ""

    def fetch(self, what: str) -> bytes:
        """Return the JSON of GET /api/v1/`what`. Raises Unreachable, or Refused in HaRP's words."""
        return self._call("GET", f"{what}{self._about}")

    def read(self, what: str, kind: type[T]) -> T:
        """Return the same, decoded."""
        return decoded(self.fetch(what), kind, lambda error: Unreachable(f"the admin listener answers {error}"))

    def end_engine(self, name: str) -> bool:
        """End the tunnel of an engine; was there one?"""
        body = self._call("DELETE", f"engines/{quote(name, safe='')}{self._about}")
        return bool(decoded(body, dict[str, int], lambda error: Unreachable(str(error))).get("ended"))

    def lift(self, address: str) -> None:
        """End a ban."""
        self._call("DELETE", f"bans/{quote(address, safe='')}{self._about}")

    def change_logs(self, query: str) -> bytes:
        """Change what is logged; the answer says what is in effect now."""
        return self._call("PUT", f"logs?{query}")

    def examine(self, query: str) -> bytes:
        """Have the doctor make a report."""
        return self._call("POST", f"doctor?{query}", EXAMINATION)

    def upgrade(self) -> int:
        """Have a new version take over; its process id."""
        body = self._call("POST", "upgrade", UPGRADE)
        return decoded(body, dict[str, int], lambda error: Unreachable(str(error)))["process"]

    def follow(self, what: str) -> Iterator[bytes]:
        """Yield the data of the server-sent events of GET /api/v1/`what`, as they come. Raises as `fetch`."""
        client = http.client.HTTPConnection("localhost", timeout=SILENCE)
        try:
            client.sock = connect(self._address)
            client.sock.settimeout(SILENCE)
            client.request("GET", f"/api/v1/{what}")
            answer = client.getresponse()
            if answer.status != 200:
                raise CallRefused(f"the admin listener answers {answer.status}")
            while line := answer.readline():
                if line.startswith(b"data: "):
                    yield line[6:].rstrip(b"\n")
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            client.close()

    def _call(self, method: str, what: str, patience: float = PATIENCE) -> bytes:
        client = http.client.HTTPConnection("localhost", timeout=patience)
        try:
            client.sock = connect(self._address)
            client.sock.settimeout(patience)
            client.request(method, f"/api/v1/{what}", headers={} if method == "GET" else CHANGING)
            answer = client.getresponse()
            status, body = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            client.close()
        if status == 200:
            return body
        told = decoded(body, dict[str, str], lambda error: Unreachable(self._stranger(status)))
        raise CallRefused(told.get("error", f"the admin listener answers {status}"))

    def _unreachable(self, error: OSError | http.client.HTTPException) -> Unreachable:
        why = words_of(error) if isinstance(error, OSError) else str(error)
        where = "does `harp run` run here? HP_ADMIN_ADDRESS says where it listens"
        return Unreachable(f"the admin listener {self._address} does not answer ({why}): {where}")

    def _stranger(self, status: int) -> str:
        return f"the admin listener {self._address} answers {status}: is it another program?"


def of_environment(instance: str = "") -> Admin:
    """Return the HaRP that runs with these settings, asked about one Nextcloud or all. Raises HarpError."""
    return Admin(settings_to_ask(instance))


def settings_to_ask(instance: str = "") -> Settings:
    """As `chosen`, for those who only ask: where HaRP listens is all that matters, so nobody needs its key."""
    if instance:
        return chosen(instance)
    reading = examine(os.environ)
    problems = [problem for problem in reading.problems if problem.startswith("HP_ADMIN_ADDRESS:")]
    if problems:
        raise SettingsError(problems)
    return reading.settings
