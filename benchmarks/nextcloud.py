"""Nextcloud's two answers, at the least cost: `python -m benchmarks.nextcloud <port> <app>=<host>:<port> ...`.

It runs until TERM and shares the processors with everybody else, so it is a plain protocol. Whoever has a session
cookie is the user "user". `GET /asked?app=<app>` returns how many calls were made for an ExApp, as JSON:
{"exapp-meta": 1, "user-info": 1}.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from typing import Final, cast
from urllib.parse import parse_qs, urlsplit

import uvloop

ROUTES: Final = [{"url": "^/user/", "access_level": 1}, {"url": ".*", "access_level": 0}]
COOKIE: Final = "oc_sessionPassphrase=bench; ocbench=bench"  # of the user "user"
USER: Final = {"user_id": "user", "access_level": 1}
NOBODY: Final = {"user_id": "", "access_level": 0}
END: Final = b"\r\n\r\n"


class Nextcloud:
    """What is known, and what was asked."""

    def __init__(self, apps: list[str]) -> None:
        self.records: dict[str, bytes] = {}
        self.asked: Counter[tuple[str, str]] = Counter()  # app and call
        for app in apps:
            name, _, address = app.partition("=")
            host, _, port = address.rpartition(":")
            record = {"exapp_token": f"secret of {name}", "exapp_version": "1.0.0", "host": host, "port": int(port)}
            self.records[name] = answer(record | {"routes": ROUTES})

    def reply(self, head: bytes) -> bytes:
        """The answer to one request."""
        parts = urlsplit(head.split(b" ", 2)[1].decode())
        query = parse_qs(parts.query)
        call = parts.path.rpartition("/")[2]
        if call == "asked":
            return answer({name: self.asked[query["app"][0], name] for name in ("exapp-meta", "user-info")})
        app = query.get("appId", [""])[0]
        self.asked[app, call] += 1
        if app not in self.records:
            return answer({"message": "unknown"}, b"401 Unauthorized")
        if call == "exapp-meta":
            return self.records[app]
        return answer(USER if b"oc_sessionPassphrase=" in head else NOBODY)


def answer(content: object, status: bytes = b"200 OK") -> bytes:
    """A whole response."""
    body = json.dumps(content).encode()
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    return head + body


class Connection(asyncio.Protocol):
    """One after the other; requests have no bodies."""

    def __init__(self, nextcloud: Nextcloud) -> None:
        self._nextcloud = nextcloud
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while END in self._pending:
            head, _, self._pending = self._pending.partition(END)
            self._transport.write(self._nextcloud.reply(head))


async def serve(port: int, apps: list[str]) -> None:
    """Serve until TERM."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    nextcloud = Nextcloud(apps)
    server = await loop.create_server(lambda: Connection(nextcloud), "127.0.0.1", port, backlog=1024)
    print("ready", flush=True)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2:]))
