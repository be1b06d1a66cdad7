"""Real processes beside the tests: started with a log file, watched through /proc, ended by their own pid."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fakes.environment import bare

PATIENCE = 20.0  # seconds for anything that should take a moment
FIRST_PORT, LAST_PORT = 18000, 22999  # below Linux's ephemeral ports, so that no outgoing connection takes one first

WORKERS = 4  # of pytest-xdist: each has ports of its own


def _port_range() -> range:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % WORKERS
    count = (LAST_PORT + 1 - FIRST_PORT) // WORKERS
    return range(FIRST_PORT + worker * count, FIRST_PORT + (worker + 1) * count)


_ports = _port_range()
_candidates = itertools.cycle(_ports)
for _ in range(os.getpid() * 97 % len(_ports)):  # test runs side by side begin at different ports
    next(_candidates)


def free_port() -> int:
    """A loopback port that nobody listens on, never the same twice in a run."""
    for port in itertools.islice(_candidates, len(_ports)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {_ports.start} and {_ports.stop - 1}")


class Process:
    """One program that we started, with its output in `log`, or on the descriptor `output`."""

    def __init__(
        self, argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, output: int | None = None
    ) -> None:
        self.argv = list(argv)
        self.log = log
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=file if output is None else output,
                stderr=subprocess.STDOUT,
                env=None if env is None else bare(**env),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def text(self) -> str:
        """What it has printed up to now."""
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit status; raises TimeoutExpired when it goes on running."""
        return self._popen.wait(timeout)

    def stop(self, timeout: float = PATIENCE) -> int:
        """TERM, and KILL when that does not help. Its exit status."""
        if self.running:
            self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """KILL: no chance to say good-bye to anybody."""
        self._popen.kill()
        self._popen.wait()

    def until(self, true: Callable[[], bool], what: str, timeout: float = PATIENCE, pause: float = 0.005) -> None:
        """Wait until `true()`; fails with the log's end when the process ends first or the time is over.

        Between two looks is a `pause`, longer where looking is work.
        """
        end = time.monotonic() + timeout
        while not true():
            if not self.running:
                raise AssertionError(f"{self.argv} ended with {self.wait()} before {what}:\n{self.text()[-2000:]}")
            if time.monotonic() > end:
                raise AssertionError(f"{self.argv}: no {what} in {timeout:g} s:\n{self.text()[-2000:]}")
            time.sleep(pause)

    def until_listening(self, port: int) -> None:
        """Wait until 127.0.0.1:port accepts connections."""
        self.until(lambda: listening(port), f"port {port}")

    # What Linux knows of it.

    def rss(self) -> int:
        """Resident memory in bytes."""
        return self._status("VmRSS") * 1024

    def peak_rss(self) -> int:
        """The most resident memory it ever had, in bytes."""
        return self._status("VmHWM") * 1024

    def has_loaded(self, package: str) -> bool:
        """Has it loaded a native part of this Python package?"""
        return f"/site-packages/{package}/" in Path(f"/proc/{self.pid}/maps").read_text()

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise AssertionError(f"/proc/{self.pid}/status has no {name}")


def listening(port: int) -> bool:
    """Does 127.0.0.1:port accept a connection?"""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
