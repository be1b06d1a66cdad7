"""Several workers (HP_WORKERS) from outside: which process serves a connection, as Linux knows it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harp.status.snapshot import MemberLine
from tests.live.processes import PATIENCE
from tests.live.product import Product
from tests.live.tunnels import start_tunnel
from tests.live.world import TUNNEL_PORT, World

TRIES = 200  # connections until one is served by a certain worker; each has an even chance


class Workers:
    """The workers of a running product."""

    def __init__(self, product: Product) -> None:
        self.product = product

    def members(self) -> list[MemberLine]:
        """As the admin API tells; empty while it does not."""
        return [MemberLine(**line) for line in self.product.told("members").get("members", [])]

    def pids(self) -> list[int]:
        """Of the workers that run now, the oldest first."""
        return [worker for forker in children(self.product.process.pid) for worker in children(forker)]

    def whole(self) -> bool:
        """Are there two, and do they talk?"""
        members = self.members()
        return len(members) == 2 and all(one.linked and one.process for one in members)

    def until_whole(self) -> None:
        self.product.process.until(self.whole, "both workers", pause=0.05)

    def until_offered(self, app: str = "hello") -> None:
        """Wait until both serve an ExApp."""
        for pid in self.pids():
            with self.connection(pid) as client:
                self.product.process.until(lambda: ask(client, f"/exapps/{app}/public") == 200, f"{app} at {pid}")

    def holder(self) -> int:
        """The process that has the only tunnel."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [one.process for one in self.members() if one.tunnels]
            return len(found) == 1

        self.product.process.until(look, "one tunnel", pause=0.2)
        return found[0]

    def other(self, pid: int) -> int:
        (found,) = set(self.pids()) - {pid}
        return found

    @contextmanager
    def connection(self, pid: int) -> Iterator[http.client.HTTPConnection]:
        """A client connection that this process serves."""
        client = self.connect(pid)
        try:
            yield client
        finally:
            client.close()

    def connect(self, pid: int) -> http.client.HTTPConnection:
        for _ in range(TRIES):
            client = http.client.HTTPConnection("127.0.0.1", self.product.http, timeout=PATIENCE)
            if ask(client, "/exapps/direct/public") == 200 and server_of(client.sock, [pid]) == pid:
                return client
            client.close()
        raise AssertionError(f"no connection of {TRIES} is served by {pid}")


def children(pid: int) -> list[int]:
    """The processes that a process has started and that have not been waited for, the oldest first."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ask(client: http.client.HTTPConnection, path: str) -> int:
    """The status of a GET, 0 when the connection has broken."""
    try:
        client.request("GET", path)
        answer = client.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    return answer.status


def server_of(sock: socket.socket, pids: list[int]) -> int:
    """Which of these processes has the other end of a connection over loopback; 0 when none has."""
    near, far = sock.getsockname()[1], sock.getpeername()[1]
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(field.rpartition(":")[2], 16) for field in fields[1:3])
        if (local, remote) == (far, near):
            inode = fields[9]
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if str(entry.readlink()) == f"socket:[{inode}]":
                    return pid
            except OSError:
                continue
    return 0


@contextmanager
def serving(product: Product, world: World, client: str) -> Iterator[Workers]:
    """Both workers serve "hello" behind one tunnel."""
    workers = Workers(product)
    workers.until_whole()
    with start_tunnel(product, client, "hello", TUNNEL_PORT, world.socket):
        workers.until_offered()
        yield workers
