"""Our own image, built with the Dockerfile on the tests' engine, in the ways people run it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.live.appapi import App, AppApi
from tests.live.engine import Engine
from tests.live.images import provide_gosu_exapp, provide_harp, provide_small_exapp, provide_static_exapp
from tests.live.processes import PATIENCE
from tests.live.product import KEY

pytestmark = pytest.mark.timeout(300)  # the first test makes images

HTTP, FRP = 8780, 8782
SOCKET = "/var/run/docker.sock"
HARP_UID = 65532


@dataclass(slots=True)
class Deployed:
    """HaRP in a container."""

    engine: Engine
    name: str
    network: str = "bridge"
    host: dict[str, Any] = field(default_factory=dict)  # the engine's HostConfig
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """As `docker run` does it, with the engine's socket and a volume on /certs."""
        environment = {"HP_SHARED_KEY": KEY, "NC_INSTANCE_URL": "http://nextcloud.local", **self.environment}
        host = {
            "Binds": [f"{self.engine.socket}:{SOCKET}:ro", f"{self.name}-certs:/certs"],
            "NetworkMode": self.network,
            **self.host,
        }
        self.engine.run(
            self.name,
            provide_harp(self.engine),
            Hostname=self.name,
            Env=[f"{name}={value}" for name, value in environment.items()],
            HostConfig=host,
            **self.settings,
        )

    @property
    def appapi(self) -> AppApi:
        """AppAPI; ExApps find HaRP's tunnel server by its name in a user network, else by its address."""
        address = self.engine.address(self.name, self.network)
        return AppApi(address, HTTP, (address if self.network == "bridge" else self.name, FRP))

    def until_pinged(self) -> None:
        """Wait for the engine's answer through HaRP, as AppAPI's connection check does (A 6.2)."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if self.appapi.ping().status == 200:
                    return
            except OSError:
                pass
            state = self.engine.inspect(self.name)["State"]
            assert state["Running"], self.engine.logs(self.name)
            assert time.monotonic() < end, self.engine.logs(self.name)
            time.sleep(0.05)

    def healthy(self) -> tuple[int, str]:
        """What the health check says."""
        return self.engine.execute(self.name, "/healthcheck.sh")


@contextmanager
def deployed(engine: Engine, name: str, **more: Any) -> Iterator[Deployed]:
    """A HaRP in a container; nothing of it is left after the block."""
    harp = Deployed(engine, name, **more)
    try:
        harp.start()
        harp.until_pinged()
        yield harp
    finally:
        engine.call("DELETE", f"/containers/{name}", query={"force": 1}).ok(204, 404)
        engine.call("DELETE", f"/volumes/{name}-certs").ok(204, 404)


@pytest.fixture(scope="module")
def network(engine: Engine) -> Iterator[str]:
    """A user network."""
    engine.network("appapi-net")
    yield "appapi-net"
    engine.call("DELETE", "/networks/appapi-net").ok(204)


READ_ONLY = {"ReadonlyRootfs": True, "Tmpfs": {"/run/harp": "", "/tmp": ""}, "CapDrop": ["NET_RAW"], "Init": True}


@pytest.mark.parametrize("host", [{}, READ_ONLY], ids=["plain", "read-only as in AIO"])
def test_it_is_healthy_and_reaches_the_engine(engine: Engine, host: dict[str, Any]) -> None:
    health = {"Healthcheck": {"Interval": 1_000_000_000}}
    with deployed(engine, "harp-plain", host=host, settings=health) as harp:
        assert harp.healthy() == (0, "healthy\n")
        for version in ("v1.41", "v1.44"):
            assert harp.appapi.docker("GET", f"/{version}/_ping").ok(200).body == b"OK"
        end = time.monotonic() + PATIENCE
        while engine.inspect("harp-plain")["State"]["Health"]["Status"] != "healthy":
            assert time.monotonic() < end, engine.inspect("harp-plain")["State"]["Health"]
            time.sleep(0.1)


def test_it_runs_as_a_plain_user_in_the_sockets_group(engine: Engine) -> None:
    host = {"GroupAdd": [str(engine.socket.stat().st_gid)], **READ_ONLY}
    with deployed(engine, "harp-plain-user", host=host, settings={"User": "harp"}) as harp:
        assert harp.healthy()[0] == 0
        assert engine.execute("harp-plain-user", "id", "-u") == (0, f"{HARP_UID}\n")
        assert engine.read("harp-plain-user", "/certs/frp/server.key")[0].uid == HARP_UID


def test_it_writes_only_its_certificates(engine: Engine) -> None:
    with deployed(engine, "harp-tidy") as harp:
        changed = engine.call("GET", "/containers/harp-tidy/changes").ok(200).json() or []
        places = {change["Path"] for change in changed}
        assert places <= {"/run", SOCKET.removeprefix("/var"), "/certs", "/var", "/var/run", SOCKET}
        assert harp.healthy()[0] == 0


def test_it_stops_at_once_and_reloads_on_hup(engine: Engine) -> None:
    with deployed(engine, "harp-signals") as harp:
        engine.call("POST", "/containers/harp-signals/kill", query={"signal": "HUP"}).ok(204)
        engine.printed("harp-signals", "reloaded")
        harp.until_pinged()
        began = time.monotonic()
        assert engine.stop("harp-signals") == 0
        assert time.monotonic() - began < 3
        engine.call("POST", "/containers/harp-signals/start").ok(204)  # with the same certificates
        harp.until_pinged()


def test_the_demo_of_compose_yaml_runs(engine: Engine) -> None:
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9780/exapps/hello/public').read().decode())"
    command = ["demo", "--port", "9780", "--frp-port", "9782", "--admin-port", "9200"]
    host = {"ReadonlyRootfs": True, "Tmpfs": {"/tmp": ""}}
    engine.run("harp-demo", provide_harp(engine), Cmd=command, HostConfig=host)
    try:
        engine.printed("harp-demo", "Ctrl-C ends it")
        code, text = engine.execute("harp-demo", "python3", "-c", ask)
        assert (code, text.strip()) == (0, "Hello stranger, this is /public")
        assert engine.stop("harp-demo") == 0
    finally:
        engine.call("DELETE", "/containers/harp-demo", query={"force": 1, "v": 1}).ok(204)


def until_term_is_handled(pid: int) -> None:
    """Wait for the first moment at which TERM is not ignored: the interpreter is up then, and HaRP is not.

    What becomes the container's first process is runc before, which handles TERM, too.
    """
    end = time.monotonic() + PATIENCE
    while b"harp" not in Path(f"/proc/{pid}/cmdline").read_bytes() or not catches_term(pid):
        assert time.monotonic() < end
        time.sleep(0.001)


def catches_term(pid: int) -> bool:
    """Has a process a handler of TERM?"""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) & 1 << signal.SIGTERM - 1)


def test_it_can_be_stopped_while_it_starts(engine: Engine) -> None:
    environment = [f"HP_SHARED_KEY={KEY}", "NC_INSTANCE_URL=http://nextcloud.local"]
    engine.run("harp-early", provide_harp(engine), Env=environment)
    try:
        until_term_is_handled(engine.inspect("harp-early")["State"]["Pid"])
        began = time.monotonic()
        assert engine.stop("harp-early") in {0, 128 + signal.SIGTERM}
        assert time.monotonic() - began < 3
    finally:
        engine.call("DELETE", "/containers/harp-early", query={"force": 1, "v": 1}).ok(204)


def test_wrong_settings_are_told_and_end_it(engine: Engine) -> None:
    engine.run("harp-wrong", provide_harp(engine), Env=["NC_INSTANCE_URL=http://nextcloud.local"])
    try:
        assert engine.until_ended("harp-wrong") == 1
        assert "HP_SHARED_KEY" in engine.logs("harp-wrong")
    finally:
        engine.call("DELETE", "/containers/harp-wrong").ok(204)


@contextmanager
def registered(harp: Deployed, app: App) -> Iterator[App]:
    """An ExApp whose record was pushed, since no Nextcloud is there to be asked. Nothing is left of it."""
    harp.appapi.store(app).ok(204)
    try:
        yield app
    finally:
        harp.engine.call("DELETE", f"/containers/{app.container}", query={"force": 1}).ok(204, 404)
        harp.engine.call("DELETE", f"/volumes/{app.volume}").ok(204, 404)


def test_an_exapp_deployed_directly_lives_on_a_user_network(engine: Engine, network: str) -> None:
    image = provide_static_exapp(engine)
    with deployed(engine, "harp-direct", network=network) as harp:
        app = App("straight", image, port=23000, network=network, direct=True, host="straight")
        with registered(harp, app):
            appapi = harp.appapi
            appapi.deploy(app)
            assert not engine.exists(app.container, "/certs/frp")
            appapi.enable(app)
            answer = appapi.call("GET", "/exapps/straight/public").ok(200)
            assert answer.json() == {"hello": "stranger", "path": "/public"}
            appapi.disable(app)
            appapi.store(app).ok(204)
            appapi.deploy(app)  # the container has another address now
            appapi.enable(app)
            appapi.disable(app)
            appapi.remove(app, data=True).ok(204)
            assert appapi.exists(app) == {"exists": False}


def test_the_integration_test_of_exapp_authors_passes(engine: Engine, network: str) -> None:
    """Step by step what workflow_ocr_backend's test_harp_integration.py does, and then that the tunnel carries."""
    image = provide_gosu_exapp(engine)
    environment = {"HP_LOG_LEVEL": "debug", "HP_VERBOSE_START": "1"}
    with deployed(engine, "harp-under-test", network=network, environment=environment) as harp:
        appapi = harp.appapi
        # 3: the connection check with an old API version
        assert appapi.docker("GET", "/v1.41/_ping", timeout=15).ok(200).body == b"OK"
        # 4: the record. Its port, 5000, is none that AppAPI would give.
        app = App("workflow_ocr_backend", image, port=5000, network=network, restart="no")
        with registered(harp, app):
            created = appapi.create(app).ok(201).json()  # 5
            assert created["name"] == "nc_app_workflow_ocr_backend"
            assert appapi.install_certificates(app).ok(204).seconds < 15  # 6
            assert engine.inspect(app.container)["State"]["Status"] == "created"
            appapi.start(app).ok(200, 204)  # 7
            assert appapi.wait_for_start(app)["started"] is True
            # 8: what is in the container
            text = engine.printed(app.container, "Creating configuration with TLS certificates")
            assert "Found /certs/frp directory." in text
            text = engine.printed(app.container, "start error")  # of the tunnel: it is not HaRP's port
            assert "permission denied" not in text.lower()
            for name in ("ca.crt", "client.crt", "client.key"):
                assert engine.execute(app.container, "test", "-f", f"/certs/frp/{name}") == (0, "")
            code, configuration = engine.execute(app.container, "cat", "/frpc.toml")
            assert code == 0
            for line in (
                "transport.tls.enable = true",
                'transport.tls.certFile = "/certs/frp/client.crt"',
                "remotePort = 5000",
                f'metadatas.token = "{KEY}"',
            ):
                assert line in configuration.splitlines()
            appapi.remove(app, data=True).ok(204)  # 9
            assert appapi.exists(app) == {"exists": False}


@pytest.mark.parametrize("tls", ["true", "false"], ids=["TLS", "HP_FRP_DISABLE_TLS"])
def test_a_tunnel_to_the_container_carries_requests(engine: Engine, network: str, tls: str) -> None:
    environment = {"HP_FRP_DISABLE_TLS": "false" if tls == "true" else "true"}
    with deployed(engine, "harp-tunnel", network=network, environment=environment) as harp:
        app = App("tunnelled", provide_small_exapp(engine), port=23001, network=network)
        with registered(harp, app):
            harp.appapi.deploy(app)
            harp.appapi.enable(app)
            assert harp.appapi.call("GET", "/exapps/tunnelled/public").ok(200).json()["hello"] == "stranger"
            assert engine.exists(app.container, "/certs/frp") is (tls == "true")
