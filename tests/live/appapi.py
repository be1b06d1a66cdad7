"""AppAPI's side of a deploy daemon: its calls with its headers, in its order (A 6.1, 6.3-6.8)."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.live.engine import EngineAnswer
from tests.live.processes import PATIENCE
from tests.live.product import KEY

LOCAL_ENGINE = 24000
SECRET = "secret of the ExApp " * 6  # AppAPI's have 128 characters
AA_VERSION = "32.0.0"


@dataclass(slots=True)
class App:
    """An ExApp as Nextcloud has it."""

    app_id: str
    image: str
    port: int
    network: str = "bridge"
    direct: bool = False
    host: str = "127.0.0.1"  # where HaRP finds it: another one only in direct mode
    version: str = "1.0.0"
    secret: str = field(default=SECRET, repr=False)
    routes: list[dict[str, Any]] = field(default_factory=lambda: [{"url": "^/public$", "access_level": 0}])
    restart: str = "unless-stopped"
    mounts: list[dict[str, str]] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def container(self) -> str:
        return f"nc_app_{self.app_id}"

    @property
    def volume(self) -> str:
        return f"nc_app_{self.app_id}_data"

    def record(self) -> dict[str, Any]:
        """What AppAPI pushes, and answers when HaRP asks (A 4.3, A 5.1)."""
        return {
            "exapp_token": self.secret,
            "exapp_version": self.version,
            "host": self.host,
            "port": self.port,
            "routes": self.routes,
        }


class AppApi:
    """AppAPI with one daemon: the HaRP at `host`:`port`, and its engine `engine`.

    `frp` is the address at which containers reach HaRP's tunnel server.
    """

    def __init__(self, host: str, port: int, frp: tuple[str, int], engine: int = LOCAL_ENGINE, key: str = KEY) -> None:
        self.host, self.port, self.frp, self.engine, self.key = host, port, frp, engine, key

    def call(
        self,
        method: str,
        target: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> EngineAnswer:
        """One request to HaRP."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        given = dict(headers or {})
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            given["Content-Type"] = "application/json"
        began = time.monotonic()
        try:
            connection.request(method, target, data, given)
            answer = connection.getresponse()
            return EngineAnswer(answer.status, answer.read(), time.monotonic() - began)
        finally:
            connection.close()

    def docker(self, method: str, path: str, body: object = None, timeout: float = 60) -> EngineAnswer:
        """A call of AppAPI's Docker client; `path` begins with /docker/ or is the engine's own."""
        password = base64.b64encode(f"app_api_haproxy_user:{self.key}".encode()).decode()
        headers = {
            "Authorization": f"Basic {password}",
            "harp-shared-key": self.key,
            "docker-engine-port": str(self.engine),
        }
        return self.call(method, f"/exapps/app_api{path}", body, headers, timeout)

    def exapp(self, method: str, app: App, path: str, timeout: float = 60) -> EngineAnswer:
        """A signed request to the ExApp."""
        headers = {
            "AA-VERSION": AA_VERSION,
            "EX-APP-ID": app.app_id,
            "EX-APP-VERSION": app.version,
            "AUTHORIZATION-APP-API": base64.b64encode(f":{app.secret}".encode()).decode(),
            "AA-REQUEST-ID": "CLI",
            "Accept-Language": "en",
            "harp-shared-key": self.key,
            "ex-app-host": app.host,
            "ex-app-port": str(app.port),
        }
        return self.call(method, f"/exapps/{app.app_id}{path}", None, headers, timeout)

    # The daemon

    def ping(self) -> EngineAnswer:
        """The connection check (A 6.2)."""
        return self.docker("GET", "/v1.44/_ping", timeout=3)

    def info(self) -> Any:
        """The setup check (A 6.2)."""
        return self.call("GET", "/exapps/app_api/info", None, {"harp-shared-key": self.key}).ok(200).json()

    # Steps of a deploy (A 6.4), by number

    def pull(self, reference: str) -> list[dict[str, Any]]:
        """1: the lines of the engine's progress. For an image that is there, `inspect_image` stands in its place."""
        answer = self.docker("POST", f"/v1.44/images/create?fromImage={reference}").ok(200)
        return [json.loads(line) for line in answer.body.splitlines()]

    def inspect_image(self, reference: str) -> EngineAnswer:
        """1, for an image that is not to be pulled."""
        return self.docker("GET", f"/v1.44/images/{reference}/json")

    def named(self, verb: str, app: App, more: Mapping[str, object] | None = None, timeout: float = 60) -> EngineAnswer:
        """POST /docker/exapp/<verb> with the container's name (A 4.6)."""
        body = {"name": app.app_id, "instance_id": "", **(more or {})}
        return self.docker("POST", f"/docker/exapp/{verb}", body, timeout)

    def exists(self, app: App) -> Any:
        """3"""
        return self.named("exists", app).ok(200).json()

    def remove(self, app: App, *, data: bool) -> EngineAnswer:
        """4, and the end of an app"""
        return self.named("remove", app, {"remove_data": data})

    def create(self, app: App) -> EngineAnswer:
        """5"""
        more = {
            "image_id": app.image,
            "network_mode": app.network,
            "environment_variables": self.environment(app),
            "restart_policy": app.restart,
            "compute_device": "cpu",
            "mount_points": app.mounts,
            "start_container": True,
        }
        return self.named("create", app, more | ({"resource_limits": app.limits} if app.limits else {}))

    def install_certificates(self, app: App, bundle: str | None = None) -> EngineAnswer:
        """6"""
        more = {"system_certs_bundle": bundle, "install_frp_certs": not app.direct}
        return self.named("install_certificates", app, more, 180)

    def start(self, app: App) -> EngineAnswer:
        """7"""
        return self.named("start", app)

    def wait_for_start(self, app: App) -> Any:
        """8"""
        return self.named("wait_for_start", app, timeout=150).ok(200).json()

    def health(self, app: App) -> str | None:
        """9: the container's health; fine is None, "" and "healthy"."""
        state = self.docker("GET", f"/v1.44/containers/{app.container}/json").ok(200).json()["State"]
        return (state.get("Health") or {}).get("Status")

    def heartbeat(self, app: App, patience: float = PATIENCE) -> float:
        """10: asked again and again until it is answered. AppAPI asks every second, we more often. Seconds it took."""
        began = time.monotonic()
        while True:
            answer = self.exapp("GET", app, "/heartbeat", 30)
            if answer.status == 200 and answer.json().get("status") == "ok":
                return time.monotonic() - began
            assert time.monotonic() - began < patience, f"no heartbeat: {answer.status} {answer.body[:300]!r}"
            time.sleep(0.05)

    def init(self, app: App) -> EngineAnswer:
        """11"""
        return self.exapp("POST", app, "/init", 30)

    # What administrators do

    def deploy(self, app: App, bundle: str | None = None) -> float:
        """Steps 3 to 11. Seconds from `create` to the first heartbeat that is answered."""
        if self.exists(app)["exists"]:
            self.remove(app, data=False).ok(204)
        began = time.monotonic()
        created = self.create(app).ok(201).json()
        assert created["name"] == app.container
        assert created["id"]
        self.install_certificates(app, bundle).ok(204)
        self.start(app).ok(204)
        assert self.wait_for_start(app)["started"] is True
        assert self.health(app) in {None, "", "healthy"}
        self.heartbeat(app)
        took = time.monotonic() - began
        self.init(app).ok(200)
        return took

    def enable(self, app: App) -> None:
        """A 6.5"""
        self.start(app).ok(200, 204)
        assert self.wait_for_start(app)["started"] is True
        self.heartbeat(app)
        assert self.exapp("PUT", app, "/enabled?enabled=1").ok(200).json() == {"error": ""}
        self.store(app).ok(204)

    def disable(self, app: App) -> None:
        """A 6.6"""
        assert self.exapp("PUT", app, "/enabled?enabled=0").ok(200).json() == {"error": ""}
        self.named("stop", app).ok(200, 204)
        self.forget(app).ok(204, 404)

    def update(self, app: App, version: str) -> None:
        """A 6.7, of an app that is enabled: same port, same secret."""
        self.disable(app)
        app.version = version
        self.deploy(app)
        self.enable(app)

    def store(self, app: App) -> EngineAnswer:
        """Push the record (A 4.3)."""
        target = f"/exapps/app_api/exapp_storage/{app.app_id}"
        return self.call("POST", target, app.record(), {"harp-shared-key": self.key})

    def forget(self, app: App) -> EngineAnswer:
        """Take the record back (A 4.3)."""
        target = f"/exapps/app_api/exapp_storage/{app.app_id}"
        return self.call("DELETE", target, None, {"harp-shared-key": self.key})

    def environment(self, app: App) -> list[str]:
        """What AppAPI puts into the container, in its order (A 6.3)."""
        variables = {
            "AA_VERSION": AA_VERSION,
            "APP_SECRET": app.secret,
            "APP_ID": app.app_id,
            "APP_DISPLAY_NAME": app.app_id,
            "APP_VERSION": app.version,
            "APP_HOST": "0.0.0.0" if app.direct else "127.0.0.1",
            "APP_PORT": str(app.port),
            "APP_PERSISTENT_STORAGE": f"/{app.volume}",
            "NEXTCLOUD_URL": "http://nextcloud.local",
            "COMPUTE_DEVICE": "CPU",
        }
        if not app.direct:
            address, port = self.frp
            variables |= {"HP_FRP_ADDRESS": address, "HP_FRP_PORT": str(port), "HP_SHARED_KEY": self.key}
        return [f"{name}={value}" for name, value in variables.items()]
