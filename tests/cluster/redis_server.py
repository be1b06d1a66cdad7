"""A Redis of a test's own, as Debian has it: one process on a unix socket."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.live.peers import path_of
from tests.live.processes import Process

PEER = "redis-server"


class RedisServer:
    """Without a file of its data: whatever is restarted has lost all. Its socket has a short path."""

    def __init__(self, directory: Path, *options: str, port: int = 0) -> None:
        self.directory = directory
        self.socket = directory / "redis.sock"
        self._argv = [path_of(PEER, "redis-server"), "--port", str(port), "--unixsocket", str(self.socket)]
        self._argv += ["--save", "", "--appendonly", "no", "--dir", str(directory), *options]
        self._log = directory / "redis.log"
        self.process: Process
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        self.process = Process(self._argv, self._log)
        self.process.until(lambda: self.socket.exists() and self.tell("PING") == "PONG", "answer")

    def tell(self, *command: str) -> str:
        """What redis-cli answers; "" while it cannot connect."""
        argv = [path_of(PEER, "redis-cli"), "-s", str(self.socket), *command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False).stdout.strip()

    def stop(self) -> None:
        """Let it hang."""
        self.process.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()

    def end(self) -> None:
        if self.process.running:
            self.process.kill()
