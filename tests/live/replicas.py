"""Three replicas, a Redis and HAProxy in front of them, as one host may have them; and load that counts what fails."""

from __future__ import annotations

import http.client
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from tests.cluster.redis_server import RedisServer
from tests.live.frp import frpc
from tests.live.many_apps import FIRST_PORT, ManyApps, app
from tests.live.peers import path_of
from tests.live.processes import Process, free_port
from tests.live.product import HARP, Product
from tests.live.tunnels import SHIPPED, configuration

NAMES = ("a", "b", "c")
START = 60.0  # seconds for all tunnels to be connected, on a slow machine

HAPROXY = Path(__file__).parents[2] / "deploy" / "replicas" / "haproxy.cfg"


class Replicas:
    """Replicas of one HaRP with one directory of certificates."""

    def __init__(self, directory: Path, redis: RedisServer, nextcloud: str, **environment: str) -> None:
        self.redis = redis
        self.http, self.frp = free_port(), free_port()  # of HAProxy
        self.directory = directory
        self.all = {name: self._replica(name, nextcloud, environment) for name in NAMES}
        self.haproxy: Process

    def __getitem__(self, name: str) -> Product:
        return self.all[name]

    def _replica(self, name: str, nextcloud: str, environment: dict[str, str]) -> Product:
        shared = self.directory / "certs"
        more = {"HP_CLUSTER_URL": self.redis.url, "HP_CLUSTER_NAME": name, "HP_CERTS_DIR": str(shared)}
        replica = Product(self.directory / name, nextcloud, **more, **environment)
        replica.certs = shared
        return replica

    def start(self) -> None:
        for replica in self.all.values():
            replica.start()
        self.until_whole()

    def start_haproxy(self) -> None:
        """With the configuration of our example for Compose, at the addresses that they have here."""
        text = re.sub(r"^resolvers .*\n(?: .*\n)+", "", HAPROXY.read_text(), flags=re.MULTILINE)
        text = text.replace(" port 8200", "").replace(" resolvers network init-addr last,libc,none", "")
        text = text.replace("bind :8780", f"bind 127.0.0.1:{self.http}").replace(
            "bind :8782", f"bind 127.0.0.1:{self.frp}"
        )
        for number, one in enumerate(self.all.values(), 1):
            text = text.replace(f"harp{number}:8780", f"127.0.0.1:{one.http} port {one.admin}")
            text = text.replace(f"harp{number}:8782", f"127.0.0.1:{one.frp} port {one.admin}")
        assert re.findall(r"server harp\d \S+ port \d+\n", text), text
        file = self.directory / "haproxy.cfg"
        file.write_text(text)
        self.haproxy = Process([path_of("haproxy", "haproxy"), "-db", "-f", str(file)], self.directory / "haproxy.log")
        self.haproxy.until_listening(self.frp)

    def stop(self) -> list[int]:
        """End all at once; their exit statuses."""
        running = [replica for replica in self.all.values() if replica.started and replica.process.running]
        for replica in running:
            replica.process.signal(signal.SIGTERM)
        return [replica.stop() for replica in running]

    def members(self, name: str) -> list[dict[str, Any]]:
        """As the admin API of a replica tells; empty while it does not."""
        found: list[dict[str, Any]] = self.all[name].told("members").get("members", [])
        return found

    def linked(self, name: str) -> list[str]:
        """The replicas that a replica is linked with, and itself."""
        return sorted(line["name"] for line in self.members(name) if line["linked"])

    def until_whole(self, seconds: float = 30.0) -> None:
        """Wait until each is linked with every other one."""
        for name, replica in self.all.items():

            def whole(name: str = name) -> bool:
                return self.linked(name) == sorted(self.all)

            replica.process.until(whole, f"links of {name}", seconds, 0.05)

    def until_served(self, apps: Sequence[str], names: Sequence[str] = NAMES, seconds: float = START) -> float:
        """Wait until these replicas serve all these apps; how many seconds that took."""
        began = time.monotonic()
        for name, one in product(names, apps):
            replica = self.all[name]

            def served(replica: Product = replica, path: str = f"/exapps/{one}/public") -> bool:
                return replica.status(path) == 200

            replica.process.until(served, f"{one} at {name}", seconds)
        return time.monotonic() - began


@dataclass
class LoadedRequest:
    """One request of a load, as it went."""

    where: str
    app: str
    status: int  # 0 = the connection broke before an answer, and again when it was tried once more
    began: float
    seconds: float
    retried: bool
    said: bytes  # the body of an error: ours and HAProxy's differ


@dataclass
class Load:
    """Clients that ask one thing after another over kept connections: each of `targets` is (name, port)."""

    targets: Sequence[tuple[str, int]]
    apps: Sequence[str]
    pause: float = 0.004
    asked: list[LoadedRequest] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        for place, (name, port) in enumerate(self.targets):
            thread = threading.Thread(target=self._run, args=(name, port, place))
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str, port: int, place: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not self._stop.is_set():
            one = self.apps[place % len(self.apps)]
            place += 1
            began = time.monotonic()
            status, retried, said = _get(client, f"/exapps/{one}/public")
            self.asked.append(LoadedRequest(name, one, status, began, time.monotonic() - began, retried, said))
            self._stop.wait(self.pause)
        client.close()

    def statuses(self, select: Callable[[LoadedRequest], bool] = lambda asked: True) -> Counter[int]:
        return Counter(asked.status for asked in list(self.asked) if select(asked))

    def p99(self, since: float = 0.0, until: float = float("inf")) -> float:
        times = sorted(asked.seconds for asked in list(self.asked) if since <= asked.began < until)
        assert len(times) > 50, len(times)
        return times[len(times) * 99 // 100]


def _get(client: http.client.HTTPConnection, path: str) -> tuple[int, bool, bytes]:
    """The status of a GET, asked once more when a kept connection was closed; whether it was; what an error says."""
    for again in (False, True):
        try:
            client.request("GET", path)
            answer = client.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            client.close()
        else:
            return answer.status, again, b"" if answer.status == 200 else body
    return 0, True, b""


@contextmanager
def tunnels(replicas: Replicas, apps: ManyApps, own: int) -> Iterator[list[Process]]:
    """A tunnel client of its own for each app, through HAProxy: the first `own` are ours, the others stock frpc."""
    with ExitStack() as stack:
        processes = []
        for number in range(apps.number):
            name = app(number)
            argv = [*HARP, "tunnel"] if number < own else [frpc(SHIPPED)]
            file = replicas.directory / f"{name}.toml"
            certificates = replicas["a"].certs / "frp"
            file.write_text(configuration(certificates, replicas.frp, name, FIRST_PORT + number, apps.socket(number)))
            process = Process([*argv, "-c", str(file)], replicas.directory / f"{name}.log")
            stack.callback(process.kill)
            processes.append(process)
        yield processes


@contextmanager
def world_of_replicas(directory: Path, apps: int, own: int, **environment: str) -> Iterator[tuple[Replicas, ManyApps]]:
    """All of it, with a tunnel for every app."""
    with ExitStack() as stack:
        short = Path(stack.enter_context(TemporaryDirectory(prefix="harp-rep-")))
        redis = RedisServer(short)
        stack.callback(redis.end)
        many = ManyApps(short, apps)
        stack.callback(many.process.stop)
        replicas = Replicas(directory, redis, many.nextcloud, **environment)
        stack.callback(replicas.stop)
        replicas.start()
        replicas.start_haproxy()
        stack.callback(replicas.haproxy.kill)
        stack.enter_context(tunnels(replicas, many, own))
        replicas.until_served([app(number) for number in range(apps)])
        yield replicas, many
