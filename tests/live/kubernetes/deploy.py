"""AppAPI with a daemon on Kubernetes: its calls in its order (K 7), through a real `harp run`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.live.appapi import App, AppApi
from tests.live.daemon import Nextcloud
from tests.live.engine import EngineAnswer
from tests.live.kubernetes.archives import EXAPP
from tests.live.kubernetes.room import Room
from tests.live.product import KEY, Product

PORT = 23000
BUNDLE = "-----BEGIN CERTIFICATE-----\nof Nextcloud's list\n-----END CERTIFICATE-----\n"


@dataclass(slots=True)
class ClusterApp(App):
    """An ExApp as AppAPI deploys it in a cluster: Nextcloud does not know where it is."""

    host: str = ""
    direct: bool = True
    roles: tuple[str, ...] = ()  # the first one is exposed
    environment: tuple[str, ...] = ()
    device: str = "cpu"
    expose: dict[str, Any] = field(default_factory=lambda: {"expose_type": "clusterip"})

    @property
    def deployments(self) -> list[str]:
        base = f"nc-app-{self.app_id}"
        return [f"{base}-{role}" for role in self.roles] or [base]


def exapp(app_id: str, **more: Any) -> ClusterApp:
    """The tests' ExApp."""
    levels = [{"url": "^/public", "access_level": 0}]
    return ClusterApp(app_id, EXAPP, PORT, host=app_id, routes=levels, **more)


class KubernetesDaemon:
    """A running HaRP with a namespace, and AppAPI in front of it."""

    def __init__(self, product: Product, nextcloud: Nextcloud, room: Room) -> None:
        self.product, self.nextcloud, self.room = product, nextcloud, room
        self.appapi = AppApi("127.0.0.1", product.http, ("127.0.0.1", product.frp))

    # Calls

    def info(self) -> Any:
        return self.appapi.info()["kubernetes"]

    def verb(self, verb: str, app: ClusterApp, role: str = "", timeout: float = 300, **more: object) -> EngineAnswer:
        body = {"name": app.app_id, "instance_id": "", "role_suffix": role, **more}
        headers = {"harp-shared-key": KEY}
        return self.appapi.call("POST", f"/exapps/app_api/k8s/exapp/{verb}", body, headers, timeout)

    def exists(self, app: ClusterApp, role: str = "") -> bool:
        return bool(self.verb("exists", app, role).ok(200).json()["exists"])

    def create(self, app: ClusterApp, role: str = "") -> EngineAnswer:
        environment = [
            *("AA_VERSION=32.0.0", f"APP_SECRET={app.secret}", f"APP_ID={app.app_id}", "APP_DISPLAY_NAME=x"),
            *(f"APP_VERSION={app.version}", "APP_HOST=0.0.0.0", f"APP_PORT={app.port}"),
            f"APP_PERSISTENT_STORAGE=/nc_app_{app.app_id}_data",
            *("NEXTCLOUD_URL=https://cloud.example.com", f"COMPUTE_DEVICE={app.device.upper()}"),
            *app.environment,
            *([f"ROLE={role}"] if role else []),
        ]
        return self.verb(
            "create",
            app,
            role,
            image_id=app.image,
            network_mode="bridge",
            environment_variables=environment,
            restart_policy="unless-stopped",
            compute_device=app.device,
            mount_points=[],
            resource_limits=[],
        )

    def wait(self, app: ClusterApp, role: str = "") -> Any:
        return self.verb("wait_for_start", app, role).ok(200).json()

    def public(self, app: ClusterApp, path: str = "/public/pod", **headers: str) -> EngineAnswer:
        """A browser's request."""
        return self.appapi.call("GET", f"/exapps/{app.app_id}{path}", None, headers, timeout=60)

    # AppAPI's doings

    def register(self, app: ClusterApp) -> float:
        """Deploy and enable; seconds from create to the first answered heartbeat."""
        assert self.info()["reachable"] is True
        self.nextcloud.apps[app.app_id] = app
        roles = app.roles or ("",)
        for role in roles:
            if self.exists(app, role):
                assert self.exists(app, role)
                self.verb("remove", app, role, remove_data=False).ok(204)
        began = time.monotonic()
        for role in roles:
            assert self.create(app, role).ok(201).json()["name"]
            self.verb("start", app, role).ok(204)
            self.verb("install_certificates", app, role, system_certs_bundle=BUNDLE, install_frp_certs=False).ok(204)
        for role in roles:
            outcome = self.wait(app, role)
            assert outcome["started"] is True, outcome
        self.expose(app).ok(200)
        self.heartbeat(app)
        took = time.monotonic() - began
        self.appapi.exapp("POST", app, "/init").ok(200)
        self.enable(app)
        return took

    def expose(self, app: ClusterApp) -> EngineAnswer:
        return self.verb("expose", app, (app.roles or ("",))[0], port=app.port, **app.expose)

    def heartbeat(self, app: ClusterApp, timeout: float = 180) -> None:
        until = time.monotonic() + timeout
        while True:
            answer = self.appapi.exapp("GET", app, "/heartbeat")
            if answer.status == 200 and answer.json() == {"status": "ok"}:
                return
            assert time.monotonic() < until, answer
            time.sleep(0.2)

    def enable(self, app: ClusterApp) -> None:
        for role in app.roles or ("",):
            self.verb("start", app, role).ok(204)
        for role in app.roles or ("",):
            outcome = self.wait(app, role)
            assert outcome["started"] is True, outcome
        self.heartbeat(app)
        assert self.appapi.exapp("PUT", app, "/enabled?enabled=1").ok(200).json() == {"error": ""}
        self.store(app)

    def store(self, app: ClusterApp) -> None:
        """Push the record, in which Nextcloud's own idea of the address stands."""
        target = f"/exapps/app_api/exapp_storage/{app.app_id}"
        self.appapi.call("POST", target, app.record(), {"harp-shared-key": KEY}).ok(204)

    def disable(self, app: ClusterApp) -> None:
        self.appapi.exapp("PUT", app, "/enabled?enabled=0").ok(200)
        for role in app.roles or ("",):
            self.verb("stop", app, role).ok(204)
        target = f"/exapps/app_api/exapp_storage/{app.app_id}"
        self.appapi.call("DELETE", target, None, {"harp-shared-key": KEY})

    def update(self, app: ClusterApp, version: str) -> ClusterApp:
        self.disable(app)
        newer = replace(app, version=version)
        self.register(newer)
        return newer

    def unregister(self, app: ClusterApp, *, data: bool) -> None:
        self.disable(app)
        for role in app.roles or ("",):
            assert self.exists(app, role)
            self.verb("remove", app, role, remove_data=data).ok(204)
        self.nextcloud.apps.pop(app.app_id)


@contextmanager
def kubernetes_daemon(directory: Path, room: Room, account: str, **environment: str) -> Iterator[KubernetesDaemon]:
    """A HaRP with the rights of an account."""
    with Nextcloud() as nextcloud:
        product = Product(directory, nextcloud.url, **room.harp(account), **environment)
        product.start()
        try:
            yield KubernetesDaemon(product, nextcloud, room)
        finally:
            product.stop()


@contextmanager
def load_balancer(room: Room, services: Sequence[str], address: str) -> Iterator[None]:
    """What a cloud does: give these Services an outer address as soon as they are there, for the time of the block."""
    over = threading.Event()

    def give() -> None:
        while not over.wait(0.2):
            for name in services:
                if name in room.names("Service"):
                    given = room.get("Service", name)
                    if given["spec"]["type"] == "LoadBalancer" and not given["status"]["loadBalancer"]:
                        room.give_load_balancer(name, address)

    thread = threading.Thread(target=give, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
