"""A replica whose list of others is a file: `python -m tests.live.listed_replica NAME FILE`; else it is `harp run`.

The file has lines of a name, a host and a port, its own included.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from harp.replica import ClusterReplica, run_listed
from harp.settings import load

LOOK = 0.1  # seconds


@dataclass(frozen=True)
class FileEntry:
    """A line of it."""

    boot: str
    host: str
    port: int


class FileList:
    """The list of one replica, as long as the file says the same."""

    def __init__(self, name: str, file: Path, replica: ClusterReplica) -> None:
        self.name = name
        self.boot = token_hex(8)
        self.problem = ""
        self.peers: Mapping[str, FileEntry] = {}
        self._file = file
        self._replica = replica

    async def claim_ca(self, directory: Path) -> None:
        """Nobody else has one: they are started one after another."""

    async def join(self, directory: Path) -> None:
        self._read()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self._read()

    async def close(self) -> None:
        """There is nothing to leave."""

    def _read(self) -> None:
        lines = [line.split() for line in self._file.read_text().splitlines()]
        peers = {name: FileEntry("", host, int(port)) for name, host, port in lines if name != self.name}
        if peers != self.peers:
            self.peers = peers
            self._replica.peers_changed()


if __name__ == "__main__":
    own_name, path = sys.argv[1], Path(sys.argv[2])
    sys.exit(run_listed(load(os.environ), own_name, lambda replica, _: FileList(own_name, path, replica)))
