"""A machine inside this one, for a whole cluster: network, mounts and processes of its own, which end together.

Its first process does nothing but live; when that one ends, the kernel ends everything else in it, containers included,
and it ends with the test run, however that ends. One pair of interfaces joins it to where the tests run: they reach
every address inside (node, pods, Services), and what runs inside reaches them at `outside`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.peers import do_without, path_of, require
from tests.live.processes import PATIENCE, Process

DIES_WITH_ITS_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
IDLE = ("env", "--ignore-signal=CHLD", "sleep", "infinity")  # ignored, so that nobody stays a zombie

# The kubelet sets these for the whole machine; it gets files in their place, and the machine keeps its own.
MACHINE_WIDE = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
VOLUMES = Path("/tmp/hostpath_pv")  # where the controllers make volumes
PREPARE = """\
set -e
mount -t tmpfs tmpfs /run
mkdir /run/netns
mount -t tmpfs tmpfs /var/log
mkdir -p {volumes} {directory}/volumes
mount --bind {directory}/volumes {volumes}
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
"""


@dataclass(frozen=True, slots=True)
class Network:
    """The addresses of an enclosure, all of one /16 that nothing else here uses."""

    number: int

    @property
    def link(self) -> str:
        """The name of the outer interface."""
        return f"harp-k8s-{self.number}"

    @property
    def whole(self) -> str:
        return f"10.{self.number}.0.0/16"

    @property
    def node(self) -> str:
        return f"10.{self.number}.0.1"

    @property
    def outside(self) -> str:
        """Where the tests are, as pods see it."""
        return f"10.{self.number}.0.254"

    @property
    def pods(self) -> str:
        return f"10.{self.number}.1.0/24"

    @property
    def pretended_pods(self) -> str:
        return f"10.{self.number}.2.1/24"

    @property
    def services(self) -> str:
        return f"10.{self.number}.128.0/17"


class Inside(Process):
    """A program in the enclosure."""

    def __init__(self, first: int, argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        super().__init__([*_entering(first), *argv], log, env=environment)

    @property
    def inner(self) -> int:
        """The program's own pid, as this side sees it: `pid` is that of nsenter, which waits for it."""
        return _only_child(self.pid)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.inner, number)

    def kill(self) -> None:
        if self.running:
            self.signal(signal.SIGKILL)
        self.wait()


class Enclosure:
    """See above; `run` starts programs in it."""

    def __init__(self, directory: Path, network: Network, process: Process, first: int) -> None:
        self.directory, self.network = directory, network
        self._process, self._first = process, first
        self._started: list[Inside] = []
        self.afterwards: list[Callable[[], None]] = []  # once everything in it has ended
        self._environment = {"PATH": f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin", "HOME": str(directory)}

    def start(self, name: str, *argv: str) -> Inside:
        """Start a program. What it prints goes to <name>.log."""
        program = Inside(self._first, argv, self.directory / f"{name}.log", self._environment)
        self._started.append(program)
        return program

    def run(self, *argv: str, content: bytes | None = None, timeout: float = 120) -> str:
        """Run a command to its end. What it printed; fails when it does."""
        command = [*_entering(self._first), *argv]
        done = subprocess.run(
            command, input=content, env=self._environment, timeout=timeout, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stderr.decode(errors='replace')[-4000:]}"
        return done.stdout.decode(errors="replace")

    def end(self) -> None:
        """End everything in it, and wait until it has."""
        os.kill(self._first, signal.SIGKILL)
        for process in (*self._started, self._process):
            process.wait()
        for clean in self.afterwards:
            clean()


@contextmanager
def enclosure(directory: Path) -> Iterator[Enclosure]:
    """An enclosure for the time of the block; nothing of it is left afterwards."""
    require("util-linux, iproute2", "setpriv", "unshare", "nsenter", "ip")
    if os.geteuid() != 0:
        do_without("a cluster of the tests needs root")
    if missing := lacking():
        pytest.skip(f"THE KERNEL LACKS what a cluster needs: {missing}")
    network = _free_network()
    with Process([*DIES_WITH_ITS_PARENT, *NAMESPACES, *IDLE], directory / "enclosure.log") as process:
        process.until(lambda: _name(_children(process.pid)) == "sleep", "namespaces")
        inside = Enclosure(directory, network, process, _only_child(process.pid))
        try:
            inside.run("sh", "-c", PREPARE.format(directory=directory, volumes=VOLUMES))
            for key, value in MACHINE_WIDE.items():
                file = directory / key.replace("/", ".")
                file.write_text(f"{value}\n")
                inside.run("mount", "--bind", str(file), f"/proc/sys/{key}")
            _join(inside, network, _only_child(process.pid))
            yield inside
        finally:
            inside.end()
            subprocess.run(
                [path_of("iproute2", "ip"), "link", "delete", network.link], check=False, capture_output=True
            )
            with suppress(OSError):  # another cluster of tests may use it
                VOLUMES.rmdir()


def lacking() -> str:
    """What this machine lacks for an enclosure, in words; empty when it lacks nothing."""
    probe = subprocess.run(
        [*NAMESPACES, "mount", "-t", "tmpfs", "x", "/run"], check=False, capture_output=True, text=True
    )
    if probe.returncode:
        return f"namespaces of its own are refused: {probe.stderr.strip()}"
    return ""


def _join(inside: Enclosure, network: Network, first: int) -> None:
    """Lay the pair of interfaces; the outer one goes with the inner one."""
    ip, name = path_of("iproute2", "ip"), network.link
    outer = [
        [ip, "link", "add", name, "type", "veth", "peer", "name", "node", "netns", str(first)],
        [ip, "address", "add", f"{network.outside}/24", "dev", name],
        [ip, "link", "set", name, "up"],
    ]
    for command in outer:
        subprocess.run(command, check=True)
    inside.run("ip", "address", "add", f"{network.node}/24", "dev", "node")
    inside.run("ip", "link", "set", "node", "up")
    inside.run("ip", "route", "add", "default", "via", network.outside)
    subprocess.run([ip, "route", "add", network.whole, "via", network.node], check=True)


def _entering(first: int) -> list[str]:
    return ["nsenter", f"--target={first}", "--net", "--mount", "--pid", "--"]


def _free_network() -> Network:
    routes = subprocess.run(
        [path_of("iproute2", "ip"), "-4", "route"], check=True, capture_output=True, text=True
    ).stdout
    for number in range(50, 100):  # engines of the tests take 100 and above
        if f"10.{number}." not in routes:
            return Network(number)
    raise AssertionError(f"no network is free:\n{routes}")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _only_child(pid: int) -> int:
    end = time.monotonic() + PATIENCE
    while not (children := _children(pid)):
        assert time.monotonic() < end, f"process {pid} has no child"
        time.sleep(0.005)
    return children[0]


def _name(pids: list[int]) -> str:
    return Path(f"/proc/{pids[0]}/comm").read_text().strip() if pids else ""
