"""`harp upgrade`: a new process takes over, and nobody notices. Sockets that systemd has opened are taken, too."""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from harp.testing.hello import static_content
from tests.live.frp import exapp_toml, start_frpc, tls_of
from tests.live.peers import path_of
from tests.live.processes import Process, free_port
from tests.live.product import HARP, KEY, Product
from tests.live.tunnels import OWN, SHIPPED, start_tunnel
from tests.live.workers import Workers
from tests.live.world import TUNNEL_PORT, World

pytestmark = pytest.mark.timeout(300)

MIB = 1 << 20
LARGE = 64 * MIB
ENDLESS = 120.0  # seconds
PAUSE = 0.003  # seconds between two requests of a visitor: without, six of them take a processor from what is tested
GOING_AWAY = b"\x88\x02\x03\xe9"  # a close frame with status 1001
WEBSOCKET = (
    b"GET /exapps/hello/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PROGRAM = f"#!{sys.executable}\nimport sys\nfrom harp.__main__ import main\nsys.exit(main())\n"

Start = Callable[[Product, str, str, int, Path], Process]


class Replaceable(Product):
    """A product that is started from a file, which may be another program later. All of its processes are ours."""

    def __init__(self, directory: Path, nextcloud: str, **environment: str) -> None:
        super().__init__(directory, nextcloud, **environment)
        self.program = directory / "harp"
        self.install(PROGRAM)

    def install(self, text: str) -> None:
        """Have another version in place of the program."""
        fresh = self.program.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(self.program)

    def harp(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*HARP, *arguments], env=self.environment, capture_output=True, text=True, timeout=100, check=False
        )

    def processes(self) -> list[int]:
        """Those that run `harp run` with these settings, whoever has started them."""
        wanted, found = f"HP_ADMIN_ADDRESS={self.environment['HP_ADMIN_ADDRESS']}".encode(), []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (
                    wanted in (place / "environ").read_bytes().split(b"\0")
                    and b") Z" not in (place / "stat").read_bytes()
                ):
                    found.append(int(place.name))
        return sorted(found)

    def until(self, true: Callable[[], bool], what: str, seconds: float = ENDLESS) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"no {what}:\n{self.process.text()[-3000:]}"
            time.sleep(0.02)

    def signal_all(self, number: signal.Signals) -> None:
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, number)


@contextmanager
def installed(directory: Path, nextcloud: str, **environment: str) -> Iterator[Replaceable]:
    """Runs inside the block; none of its processes does after it."""
    product = Replaceable(directory, nextcloud, **environment)
    product.start([str(product.program)])
    try:
        yield product
    finally:
        product.process.kill() if not product.processes() else product.signal_all(signal.SIGTERM)
        try:
            product.until(lambda: not product.processes(), "end", 30)
        finally:
            product.signal_all(signal.SIGKILL)
            product.process.kill()


class Regular(threading.Thread):
    """Makes one request after another, on one connection or each on its own; 0 is the status of none."""

    def __init__(self, port: int, method: str, path: str, *, keeps: bool) -> None:
        super().__init__(daemon=True)
        self.statuses: list[int] = []
        self.longest = 0.0
        self._request = (method, path, b"x" * 100_000 if method == "POST" else None)
        self._client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._keeps = keeps
        self._leaving = threading.Event()

    def run(self) -> None:
        while not self._leaving.is_set():
            began = time.monotonic()
            try:
                self._client.request(*self._request)
                answer = self._client.getresponse()
                answer.read()
                self.statuses.append(answer.status)
            except (OSError, http.client.HTTPException):
                self.statuses.append(0)
                self._client.close()
            self.longest = max(self.longest, time.monotonic() - began)
            if not self._keeps:
                self._client.close()
            self._leaving.wait(PAUSE)

    def leave(self) -> None:
        self._leaving.set()
        self.join(60)
        self._client.close()


@contextmanager
def visitors(product: Replaceable) -> Iterator[list[Regular]]:
    """Visitors of both ExApps until the end of the block."""
    wishes = [("GET", "/exapps/direct/public"), ("GET", "/exapps/hello/public"), ("POST", "/exapps/hello/upload")]
    found = [Regular(product.http, *wish, keeps=keeps) for wish in wishes for keeps in (True, False)]
    for visitor in found:
        visitor.start()
    try:
        until_served(product, found, 10)
        yield found
    finally:
        for visitor in found:
            visitor.leave()


def until_served(product: Replaceable, found: list[Regular], more: int) -> None:
    """Wait until every visitor has been served some more times."""
    wanted = [len(visitor.statuses) + more for visitor in found]
    product.until(lambda: all(len(v.statuses) >= w for v, w in zip(found, wanted, strict=True)), "answers")


def websocket(product: Replaceable) -> socket.socket:
    """One that is open."""
    client = socket.create_connection(("127.0.0.1", product.http), timeout=ENDLESS)
    client.sendall(WEBSOCKET)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
    return client


def unmultiplexed(product: Product, client: str, name: str, port: int, path: Path) -> Process:
    """As `start_tunnel`, with a connection for each request."""
    more = {key.replace(".", "__"): value for key, value in tls_of(product.certs / "frp").items()}
    text = exapp_toml(product.frp, name, port, path, KEY, transport__tcpMux=False, **more)
    return start_frpc(client, text, product.directory)


@pytest.mark.parametrize(
    ("start", "client", "workers"),
    [(start_tunnel, OWN, 1), (start_tunnel, SHIPPED, 1), (start_tunnel, SHIPPED, 2), (unmultiplexed, SHIPPED, 1)],
)
def test_no_request_is_lost_when_a_new_process_takes_over(
    world: World, tmp_path: Path, start: Start, client: str, workers: int
) -> None:
    patient = {"HP_TIMEOUT_CLIENT": "200s", "HP_TIMEOUT_UPGRADE": "200s"}  # of a machine that may be busy
    with ExitStack() as stack:
        product = stack.enter_context(installed(tmp_path / "harp", world.nextcloud, HP_WORKERS=str(workers), **patient))
        stack.enter_context(start(product, client, "hello", TUNNEL_PORT, world.socket))
        product.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        if workers == 2:
            Workers(product).until_whole()
        before = set(product.processes())
        open_socket = stack.enter_context(websocket(product))
        download = http.client.HTTPConnection("127.0.0.1", product.http, timeout=ENDLESS)
        download.request("GET", f"/exapps/hello/static/{LARGE}")
        answer = download.getresponse()
        begin = answer.read(MIB)
        found = stack.enter_context(visitors(product))
        done = product.harp("upgrade")
        assert done.returncode == 0, done.stderr
        now = int(done.stdout.split()[1])
        assert open_socket.recv(4) == GOING_AWAY
        open_socket.close()
        until_served(product, found, 25)  # while the download goes on through the tunnel of the old process
        assert begin + answer.read() == b"".join(static_content(LARGE))
        download.close()
        product.until(lambda: not before & set(product.processes()), "end of the old process")
        assert product.process.wait() == 0
        until_served(product, found, 25)
        for visitor in found:
            visitor.leave()
        assert {status for visitor in found for status in visitor.statuses} == {200}
        assert now in product.processes()
        assert product.admin_status("/heartbeat") == 200


def test_the_signal_usr2_does_the_same_again_and_again(world: World, tmp_path: Path) -> None:
    with installed(tmp_path / "harp", world.nextcloud) as product:
        for _ in range(2):
            (before,) = product.processes()
            os.kill(before, signal.SIGUSR2)
            product.until(lambda before=before: len(p := product.processes()) == 1 and before not in p, "new process")  # type: ignore[misc]
            assert product.status("/exapps/direct/public") == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_version_that_cannot_start_leaves_the_old_one_serving(world: World, tmp_path: Path, workers: str) -> None:
    with installed(tmp_path / "harp", world.nextcloud, HP_WORKERS=workers) as product:
        if workers == "2":
            Workers(product).until_whole()
        before = product.processes()
        product.install(f"#!{sys.executable}\nimport harp_that_is_not_there\n")
        done = product.harp("upgrade")
        assert done.returncode == 1
        assert "No module named 'harp_that_is_not_there'" in done.stderr
        product.install(PROGRAM)
        (product.certs / "cert.pem").write_text("not a certificate")
        done = product.harp("upgrade")
        assert done.returncode == 1
        assert "cert.pem is not a PEM file" in done.stderr
        (product.certs / "cert.pem").unlink()
        product.until(lambda: product.processes() == before, "end of the failed ones")
        assert product.status("/exapps/direct/public") == 200
        assert product.harp("upgrade").returncode == 0
        product.until(lambda: not set(before) & set(product.processes()), "end of the old one")
        assert product.status("/exapps/direct/public") == 200


def test_a_version_that_hangs_ends_with_the_old_one(world: World, tmp_path: Path) -> None:
    with installed(tmp_path / "harp", world.nextcloud) as product:
        (before,) = product.processes()
        product.install("#!/bin/sh\nexec sleep 600\n")
        os.kill(before, signal.SIGUSR2)
        product.until(lambda: len(product.processes()) == 2, "new process")
        assert product.status("/exapps/direct/public") == 200
        os.kill(before, signal.SIGTERM)
        product.until(lambda: not product.processes(), "end of both")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_stopping_harp_stops_the_version_that_is_about_to_take_over(world: World, tmp_path: Path, workers: str) -> None:
    more = {"HP_WORKERS": workers, "HP_TIMEOUT_DRAIN": "120s"}
    with installed(tmp_path / "harp", world.nextcloud, **more) as product, ExitStack() as stack:
        stack.enter_context(start_tunnel(product, OWN, "hello", TUNNEL_PORT, world.socket))
        product.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        gate = tmp_path / "gate"
        wait = f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.05)\n"
        product.install(PROGRAM.replace("import sys\n", f"import sys\n{wait}", 1))
        download = http.client.HTTPConnection("127.0.0.1", product.http, timeout=ENDLESS)
        download.request("GET", f"/exapps/hello/static/{LARGE}")
        answer = download.getresponse()
        count = len(product.processes())
        os.kill(product.process.pid, signal.SIGUSR2)
        product.until(lambda: len(product.processes()) == count + 1, "new process")
        os.kill(product.process.pid, signal.SIGTERM)
        product.until(lambda: "stopping" in product.process.text(), "drain")
        gate.touch()
        product.until(lambda: "upgrade failed" in product.process.text(), "refusal")
        answer.close()
        download.close()
        product.until(lambda: not product.processes(), "end of both")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_upgrade_that_the_system_refuses_is_reported_and_can_be_tried_again(
    world: World, tmp_path: Path, workers: str
) -> None:
    with installed(tmp_path / "harp", world.nextcloud, HP_WORKERS=workers) as product:
        if workers != "1":
            Workers(product).until_whole()
        parent = product.process.pid
        before = product.processes()
        soft, hard = resource.prlimit(parent, resource.RLIMIT_NOFILE)

        def refused() -> bool:
            used = {int(number.name) for number in Path(f"/proc/{parent}/fd").iterdir()}
            free = min(set(range(len(used) + 1)) - used)  # one is left: a lone process needs it for the one that asks
            resource.prlimit(parent, resource.RLIMIT_NOFILE, (free + 1, hard))
            done = product.harp("upgrade")
            assert done.returncode == 1
            return "Too many open files" in done.stderr

        product.until(refused, "refusal")  # something else may have had the last descriptor for a moment
        resource.prlimit(parent, resource.RLIMIT_NOFILE, (soft, hard))
        assert product.harp("upgrade").returncode == 0
        product.until(lambda: not set(before) & set(product.processes()), "end of the old one")


def test_systemd_is_told_which_process_it_is_now(world: World, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        with installed(
            tmp_path / "harp", world.nextcloud, NOTIFY_SOCKET=str(tmp_path / "notify"), INVOCATION_ID="1"
        ) as product:
            first = product.processes()[0]
            assert systemd.recv(1000).decode() == f"READY=1\nMAINPID={first}"
            done = product.harp("upgrade")
            assert done.returncode == 0, done.stderr
            second = int(done.stdout.split()[1])
            told = {systemd.recv(1000).decode() for _ in range(2)}  # by the old one and by the new one
            assert told == {f"READY=1\nMAINPID={second}", f"MAINPID={second}"}
        assert systemd.recv(1000).decode() == "STOPPING=1"


def test_a_unit_that_systemd_would_restart_is_not_upgraded(world: World, tmp_path: Path) -> None:
    with installed(tmp_path / "harp", world.nextcloud, INVOCATION_ID="1") as product:
        done = product.harp("upgrade")
        assert done.returncode == 1
        assert "the unit needs Type=notify" in done.stderr


# Socket activation


def activated(product: Product, *names: str) -> list[str]:
    """What starts it as systemd does: with the sockets, when somebody connects."""
    ports = {"http": product.http, "frp": product.frp, "admin": product.admin}
    argv = [path_of("systemd", "systemd-socket-activate"), f"--fdname={':'.join(names)}"]
    for name, port in ports.items():
        argv.append(f"--listen=127.0.0.1:{port}")
        assert name
    for name, value in product.environment.items():
        argv.append(f"--setenv={name}={value}")
    return [*argv, *HARP]


@pytest.mark.parametrize("names", [("http", "frp", "admin"), ("harp.socket", "harp.socket", "harp.socket")])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_sockets_of_systemd_are_served(world: World, tmp_path: Path, names: tuple[str, ...], workers: str) -> None:
    product = Replaceable(tmp_path / "harp", world.nextcloud, HP_WORKERS=workers)
    product.start(activated(product, *names))
    try:
        with start_tunnel(product, OWN, "hello", TUNNEL_PORT, world.socket):
            product.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
            assert product.admin_status("/heartbeat") == 200
            assert product.status("/exapps/direct/public") == 200
    finally:
        assert product.stop() == 0


def test_sockets_that_no_variable_names_are_reported(world: World, tmp_path: Path) -> None:
    product = Replaceable(tmp_path / "harp", world.nextcloud)
    argv = activated(product, "http", "frp", "admin")
    other = free_port()
    argv[2] = f"--listen=127.0.0.1:{other}"
    with Process([*argv, "run"], tmp_path / "log", env=product.environment) as process:
        process.until(lambda: "Listening on" in process.text(), "systemd-socket-activate")
        with socket.create_connection(("127.0.0.1", other)):
            assert process.wait() == 1
    assert f"systemd has socket 'http' on 127.0.0.1:{other}" in process.text()
    assert "HP_EXAPPS_ADDRESS" in process.text()
