"""The control API with a cluster behind it: AppAPI's calls on one side, a FakeCluster on the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from harp.control.api import application
from harp.engines.kubernetes.cluster import KubernetesCluster
from harp.engines.verbs import ContainerEngine
from harp.policy.exapp import ExApp, RecordFact, UnknownApp
from harp.policy.kubernetes_rights import FEATURES, Feature
from harp.settings import load
from tests.fakes.clock import Clock
from tests.fakes.cluster import TOKEN, FakeCluster

APP = "app-skeleton-python"
D = "nc-app-app-skeleton-python"
CLAIM = f"{D}-data"
IMAGE = "ghcr.io/nextcloud/app-skeleton-python:1.0"
SECRET = "the secret of the app"
CREATE: dict[str, Any] = {
    "name": APP,
    "image_id": IMAGE,
    "environment_variables": [f"APP_ID={APP}", f"APP_SECRET={SECRET}", "APP_PORT=23000", "APP_HOST=0.0.0.0"],
    "resource_limits": [],
}
QUICK = {"HP_K8S_SCHEDULE_PATIENCE": "300ms"}


class NextcloudOfCluster:
    """The instance, with the ExApps that Nextcloud knows."""

    def __init__(self) -> None:
        self.known = {APP: ExApp(APP, "t", "1.0", "app", 23000)}
        self.cluster: KubernetesCluster | None = None
        self.records: dict[str, ExApp] = {}

    def put(self, record: ExApp) -> None:
        assert self.cluster is not None
        self.records[record.app_id] = self.cluster.lookout.placed(record)

    def delete(self, app_id: str) -> bool:
        return self.records.pop(app_id, None) is not None

    async def fetch(self, app_id: str) -> RecordFact:
        if app_id not in self.known:
            return UnknownApp()
        self.put(self.known[app_id])
        return self.records[app_id]


class NoDocker:
    """No call here is for Docker."""

    async def engine(self, port: int, patience: float = 15.0) -> ContainerEngine:
        raise AssertionError(port)

    def name(self, port: int) -> str:
        raise AssertionError(port)

    def doubt(self, port: int) -> None:
        raise AssertionError(port)


class KubernetesWorld:
    """AppAPI's view of a HaRP."""

    def __init__(
        self, cluster: FakeCluster, client: TestClient[Request, Application], harp: KubernetesCluster, clock: Clock
    ) -> None:
        self.cluster, self.client, self.harp, self.clock = cluster, client, harp, clock
        self.nextcloud = NextcloudOfCluster()

    async def call(self, verb: str, **body: Any) -> tuple[int, Any]:
        """One verb; the status, and the JSON or text."""
        answer = await self.client.post(f"/k8s/exapp/{verb}", json={"name": APP, **body})
        if answer.content_type == "application/json":
            return answer.status, await answer.json()
        return answer.status, await answer.text()

    async def create(self, **body: Any) -> tuple[int, Any]:
        return await self.call("create", **{**CREATE, **body})

    async def deploy(self, **names: str) -> None:
        """Create, start and wait, as AppAPI does, and have it go well."""
        assert (await self.create(**names))[0] == 201
        assert (await self.call("start", **names))[0] == 204
        assert (await self.call("install_certificates", **names, install_frp_certs=False))[0] == 204
        status, outcome = await self.call("wait_for_start", **names)
        assert (status, outcome["started"]) == (200, True), outcome

    async def info(self) -> dict[str, Any]:
        answer = await self.client.get("/info")
        info: dict[str, Any] = (await answer.json())["kubernetes"]
        return info

    def deployment(self, name: str = D) -> dict[str, Any]:
        return self.cluster.get("deployments", name)

    def container(self, name: str = D) -> dict[str, Any]:
        container: dict[str, Any] = self.deployment(name)["spec"]["template"]["spec"]["containers"][0]
        return container


@asynccontextmanager
async def world(
    features: Iterable[Feature] = FEATURES, clock: Clock | None = None, **env: str
) -> AsyncIterator[KubernetesWorld]:
    """A HaRP with a cluster that allows these features; `clock` in place of real time."""
    fake = FakeCluster(features)
    async with fake.serving():
        settings = load(
            {
                "HP_SHARED_KEY": "the shared key of these tests",
                "NC_INSTANCE_URL": "https://cloud.example.com",
                "HP_K8S_ENABLED": "true",
                "HP_K8S_API_SERVER": fake.url,
                "HP_K8S_BEARER_TOKEN": TOKEN,
                **QUICK,
                **env,
            }
        )
        now = clock or asyncio.get_running_loop().time
        harp = KubernetesCluster(settings, now)
        nextcloud = NextcloudOfCluster()
        nextcloud.cluster = harp
        app = application(nextcloud, settings, lambda address, token: None, NoDocker(), harp)
        async with TestClient(TestServer(app)) as client:
            there = KubernetesWorld(fake, client, harp, clock or Clock())
            there.nextcloud = nextcloud
            yield there
        await harp.close()
