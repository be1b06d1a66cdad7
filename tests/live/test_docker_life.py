"""The whole life of an ExApp, as AppAPI leads it through a real engine (A 6.4-6.8)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.appapi import App, AppApi
from tests.live.daemon import Daemon, running_daemon
from tests.live.engine import Engine, private_podman
from tests.live.frp import EXAPP_VERSION, NEWEST, frpc, tls_of, toml
from tests.live.images import provide_gosu_exapp, provide_podman_exapp, provide_python_exapp, provide_small_exapp
from tests.live.processes import Process
from tests.live.product import KEY

pytestmark = pytest.mark.timeout(300)  # the first test makes images

IMAGES = {
    f"busybox with frpc {EXAPP_VERSION}": provide_small_exapp,
    f"Debian with frpc {EXAPP_VERSION}, the app as a plain user": provide_gosu_exapp,
    "Debian with our client, all of it as a plain user": provide_python_exapp,
}
NEVER = "0001-01-01T00:00:00Z"  # the engine's "has not been started"
REMOTE = 24001


@pytest.fixture(scope="module")
def daemon(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A HaRP with the engine as its local one."""
    with running_daemon(tmp_path_factory.mktemp("daemon"), engine) as daemon:
        yield daemon


def live(daemon: Daemon, appapi: AppApi, image: str, app_id: str, network: str = "bridge") -> None:
    """A whole life, from the connection check to the removal with all data."""
    engine = daemon.engine
    assert appapi.ping().ok(200).body == b"OK"
    assert appapi.inspect_image(image).ok(200).json()["RepoTags"] == [image]
    with daemon.app(App(app_id, image, port=23100, network=network)) as app:
        appapi.deploy(app)
        appapi.enable(app)
        engine.printed(app.container, "enabled")
        answer = appapi.call("GET", f"/exapps/{app_id}/public").ok(200)
        assert answer.json() == {"hello": "stranger", "path": "/public"}
        marker = f"/{app.volume}/marker"
        assert engine.execute(app.container, "sh", "-c", f"echo precious > {marker}", user="0")[0] == 0

        before = engine.inspect(app.container)["Id"]
        appapi.update(app, "2.0.0")
        assert engine.inspect(app.container)["Id"] != before
        assert "APP_VERSION=2.0.0" in engine.inspect(app.container)["Config"]["Env"]
        assert engine.execute(app.container, "cat", marker) == (0, "precious\n")
        assert appapi.call("GET", f"/exapps/{app_id}/public").ok(200)

        appapi.disable(app)
        assert engine.inspect(app.container)["State"]["Status"] == "exited"
        appapi.enable(app)
        appapi.disable(app)
        assert appapi.exists(app)["exists"] is True
        appapi.remove(app, data=True).ok(204)
        assert appapi.exists(app) == {"exists": False}
        assert engine.call("GET", f"/volumes/{app.volume}").status == 404


@pytest.mark.parametrize("provide", IMAGES.values(), ids=IMAGES.keys())
def test_an_exapp_lives_on_the_local_engine(daemon: Daemon, provide: Callable[[Engine], str]) -> None:
    live(daemon, daemon.appapi, provide(daemon.engine), "lively")


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
def test_an_exapp_lives_on_a_remote_engine_behind_a_stock_frpc(engine: Engine, version: str, tmp_path: Path) -> None:
    image = provide_small_exapp(engine)
    with (
        running_daemon(tmp_path / "harp", engine, HP_DOCKER_HOST="unix:///nonexistent.sock") as daemon,
        remote_engine(daemon, version, tmp_path) as tunnel,
    ):
        appapi = daemon.with_engine(REMOTE)
        tunnel.until(lambda: appapi.ping().status == 200, "engine")
        assert daemon.appapi.ping().status == 503
        live(daemon, appapi, image, "distant")


def test_an_exapp_lives_on_podman(tmp_path: Path) -> None:
    with private_podman() as podman, running_daemon(tmp_path, podman) as daemon:
        live(daemon, daemon.appapi, provide_podman_exapp(podman), "podded", network="host")


def remote_engine(daemon: Daemon, version: str, directory: Path) -> Process:
    """A stock frpc that offers the engine's socket, as an administrator sets it up (A 7.5)."""
    client: dict[str, object] = {
        "serverAddr": "127.0.0.1",
        "serverPort": daemon.product.frp,
        "loginFailExit": False,
        "metadatas.token": KEY,
        **tls_of(daemon.product.certs / "frp"),
    }
    proxy = {
        "name": "engine-of-the-tests",
        "type": "tcp",
        "remotePort": REMOTE,
        "plugin.type": "unix_domain_socket",
        "plugin.unixPath": str(daemon.engine.socket),
    }
    file = directory / "frpc.toml"
    file.write_text(f"{toml(client)}\n[[proxies]]\n{toml(proxy)}")
    return Process([frpc(version), "-c", str(file)], directory / "frpc.log")


def test_a_small_exapp_beats_within_three_seconds_of_its_creation(daemon: Daemon) -> None:
    image = provide_small_exapp(daemon.engine)
    took: list[float] = []
    while len(took) < 5 and min(took, default=9) >= 3:  # something else may run on this machine
        with daemon.app(App("quick", image, port=23101)) as app:
            took.append(daemon.appapi.deploy(app, bundle()))
    assert min(took) < 3, took


def bundle() -> str:
    """A CA bundle as large as Nextcloud's own."""
    return Path("/etc/ssl/certs/ca-certificates.crt").read_text()


@pytest.mark.parametrize("provide", IMAGES.values(), ids=IMAGES.keys())
def test_certificates_take_half_a_second_and_start_nothing(daemon: Daemon, provide: Callable[[Engine], str]) -> None:
    image = provide(daemon.engine)
    took: list[float] = []
    while len(took) < 10 and min(took, default=1) >= 0.5:  # something else may run on this machine
        with daemon.app(App("still", image, port=23102)) as app:
            daemon.appapi.create(app).ok(201)
            took.append(daemon.appapi.install_certificates(app, bundle()).ok(204).seconds)
            state = daemon.engine.inspect(app.container)["State"]
            assert (state["Status"], state["StartedAt"]) == ("created", NEVER)
    assert min(took) < 0.5, took


def test_an_exapp_with_a_key_of_its_own_has_its_tunnel(engine: Engine, tmp_path: Path) -> None:
    with running_daemon(tmp_path, engine, HP_EXAPP_KEYS="derived", HP_TUNNEL_CLAIMS="strict") as daemon:
        for number, provide in enumerate((provide_small_exapp, provide_python_exapp)):
            with daemon.app(App(f"own{number}", provide(engine), port=23130 + number)) as app:
                daemon.appapi.deploy(app)
                daemon.appapi.enable(app)
                assert daemon.appapi.call("GET", f"/exapps/{app.app_id}/public").status == 200
                environment = engine.inspect(app.container)["Config"]["Env"]
                assert any(variable.startswith("HP_SHARED_KEY=") for variable in environment)
                assert f"HP_SHARED_KEY={KEY}" not in environment


def test_an_exapp_that_dies_at_its_start_says_why(daemon: Daemon) -> None:
    image = provide_small_exapp(daemon.engine)
    with daemon.app(App("dying", image, port=23103, restart="no")) as app:
        body = {
            "name": app.app_id,
            "instance_id": "",
            "image_id": image,
            "environment_variables": ["HP_SHARED_KEY=key"],  # and none of the others
            "restart_policy": "no",
        }
        daemon.appapi.docker("POST", "/docker/exapp/create", body).ok(201)
        daemon.appapi.start(app).ok(204)
        answer = daemon.appapi.wait_for_start(app)
    assert answer["started"] is False
    assert answer["status"] == "exited"
    assert "HP_SHARED_KEY is set, but not HP_FRP_ADDRESS" in json.dumps(answer)


def test_a_crash_loop_fails_in_seconds_with_its_exit_code_and_last_words(daemon: Daemon) -> None:
    image = provide_small_exapp(daemon.engine)
    script = "printf '\\033[1;31mcannot open the model\\033[0m\\n'; exit 3"
    with daemon.app(App("looping", image, port=23141)) as app:
        host = {"RestartPolicy": {"Name": "unless-stopped"}}
        daemon.engine.create(app.container, image, Entrypoint=["sh", "-c"], Cmd=[script], HostConfig=host)
        daemon.appapi.start(app).ok(204)
        began = time.monotonic()
        answer = daemon.appapi.wait_for_start(app)
        assert time.monotonic() - began < 20  # 4 s on a machine with nothing else to do
    assert answer["started"] is False
    assert answer["reason"].startswith("restarted ")
    assert "exit code 3: cannot open the model" in answer["reason"]


def test_a_container_that_runs_already_is_not_waited_for(daemon: Daemon) -> None:
    with daemon.app(App("ready", provide_small_exapp(daemon.engine), port=23142)) as app:
        daemon.appapi.deploy(app)
        took: list[float] = []
        while len(took) < 10 and min(took, default=1) >= 0.09:
            began = time.monotonic()
            assert daemon.appapi.wait_for_start(app)["started"] is True
            took.append(time.monotonic() - began)
        assert min(took) < 0.09, took


def test_the_tunnel_comes_back_when_harp_and_the_tunnel_client_were_away(daemon: Daemon) -> None:
    image = provide_small_exapp(daemon.engine)
    with daemon.app(App("stubborn", image, port=23104)) as app:
        daemon.appapi.deploy(app)
        code, _ = daemon.engine.execute(app.container, "killall", "-9", "frpc")
        assert code == 0
        daemon.appapi.heartbeat(app)
        daemon.product.stop()
        daemon.product.start()
        daemon.appapi.heartbeat(app, 40)
        assert daemon.engine.inspect(app.container)["RestartCount"] == 0


def test_an_exapp_ends_at_once_when_told_to(daemon: Daemon) -> None:
    for number, provide in enumerate(IMAGES.values()):
        with daemon.app(App(f"polite{number}", provide(daemon.engine), port=23105 + number)) as app:
            daemon.appapi.deploy(app)
            began = time.monotonic()
            daemon.appapi.named("stop", app).ok(204)
            assert time.monotonic() - began < 3
            assert daemon.engine.inspect(app.container)["State"]["ExitCode"] == 0


@pytest.mark.parametrize("user", ["", "app"], ids=["root", "a plain user"])
def test_the_start_script_needs_no_writable_root(engine: Engine, user: str) -> None:
    environment = ["HP_SHARED_KEY=k", "HP_FRP_ADDRESS=127.0.0.1", "HP_FRP_PORT=1", "APP_ID=a", "APP_PORT=23000"]
    host = {"ReadonlyRootfs": True, "Tmpfs": {"/tmp": ""}}
    image = provide_small_exapp(engine)
    engine.run("read-only", image, Env=[*environment, "APP_SECRET=s"], User=user, HostConfig=host)
    try:
        engine.printed("read-only", "without TLS certificates, /tmp/frpc.toml")
        engine.printed("read-only", "connect to server")  # frpc has read it
        assert engine.stop("read-only") == 0
    finally:
        engine.call("DELETE", "/containers/read-only", query={"force": 1}).ok(204)
