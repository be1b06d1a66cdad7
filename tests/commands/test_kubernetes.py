"""A HaRP with a cluster, in process: its records lead there, and its commands tell of it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession

from harp.app import Harp
from harp.commands import engine_list
from harp.commands.check import check
from harp.policy.exapp import ExApp
from harp.policy.kubernetes_rights import DEPLOY, FEATURES, NODES, Feature
from harp.settings import load
from harp.status.doctor.doctor import cluster_finding
from tests.engines.test_kubernetes_lookout import deployment, service
from tests.fakes.cluster import TOKEN, FakeCluster
from tests.fakes.waiting import until

pytestmark = pytest.mark.hasty

RECORD = ExApp("app-x", "t", "1.0", "app-x", 23000)


def environment(directory: Path, cluster: FakeCluster, http: int = 0, admin: int = 0) -> dict[str, str]:
    return {
        "HP_SHARED_KEY": "the shared key of these tests",
        "NC_INSTANCE_URL": "http://127.0.0.1:1",
        "HP_EXAPPS_ADDRESS": f"127.0.0.1:{http}",
        "HP_FRP_ADDRESS": "127.0.0.1:0",
        "HP_FRP_DISABLE_TLS": "true",
        "HP_ADMIN_ADDRESS": f"127.0.0.1:{admin}",
        "HP_CERTS_DIR": str(directory),
        "HP_K8S_ENABLED": "true",
        "HP_K8S_API_SERVER": cluster.url,
        "HP_K8S_BEARER_TOKEN": TOKEN,
    }


@asynccontextmanager
async def running(directory: Path, *features: Feature) -> AsyncIterator[tuple[Harp, FakeCluster, dict[str, str]]]:
    """A HaRP, its cluster, and the environment of its commands."""
    cluster = FakeCluster(features)
    cluster.put("deployments", deployment())
    cluster.put("services", service("10.96.0.5"))
    async with cluster.serving():
        harp = Harp(load(environment(directory, cluster)))
        await harp.start()
        try:
            yield harp, cluster, environment(directory, cluster, harp.http_ports[0], harp.admin_ports[0])
        finally:
            await harp.stop(drain=0)


async def test_records_lead_into_the_cluster_and_follow_it(tmp_path: Path) -> None:
    async with running(tmp_path, *FEATURES) as (harp, cluster, _):
        assert harp.tenant.cluster is not None
        await harp.tenant.cluster.lookout.known()
        harp.instance.put(RECORD)
        known = harp.instance.records.get("app-x")
        assert isinstance(known, ExApp)
        assert known.host == "10.96.0.5"
        version = harp.instance.version
        cluster.put("services", service("10.96.0.9"))
        await until(lambda: harp.instance.version > version)
        moved = harp.instance.records.get("app-x")
        assert isinstance(moved, ExApp)
        assert moved.host == "10.96.0.9"
        cluster.put("deployments", {**deployment(), "status": {"readyReplicas": 2}})  # idle connections end
        harp.instance.connection_failed("app-x")
        before = cluster.called("list", "services")
        await until(lambda: cluster.called("list", "services") > before)


async def test_the_engine_list_has_the_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(tmp_path, DEPLOY, NODES) as (harp, cluster, env):
        assert harp.tenant.cluster is not None
        await harp.tenant.cluster.lookout.known()
        capsys.readouterr()
        assert await asyncio.to_thread(engine_list.show, load(env)) == 0
        out = capsys.readouterr().out
        assert f"Kubernetes {cluster.url}, namespace nextcloud-exapps: in order" in out
        assert "10.96.0.5:23000" in out
        assert "right missing (logs): get pods/log: for " in out
        async with ClientSession() as client:
            answer = await client.get(f"http://127.0.0.1:{harp.admin_ports[0]}/api/v1/cluster")
            exapps = json.loads(await answer.read())["cluster"]["exapps"]
        assert [exapp["name"] for exapp in exapps] == ["nc-app-app-x"]


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (FEATURES, "every right is there"),
        ((DEPLOY,), "right missing (nodes): list nodes: for "),
        ((NODES,), "lacks: get, list, create, patch, delete deployments.apps"),
    ],
)
async def test_check_says_what_the_cluster_allows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], features: tuple[Feature, ...], said: str
) -> None:
    cluster = FakeCluster(features)
    async with cluster.serving():
        assert await asyncio.to_thread(check, environment(tmp_path, cluster, 8780, 8200)) == 0
    assert said in capsys.readouterr().out


async def test_the_doctor_looks_at_the_cluster(tmp_path: Path) -> None:
    assert cluster_finding(None).state == "skipped"
    async with running(tmp_path, DEPLOY, NODES) as (harp, _, __):
        assert harp.tenant.cluster is not None
        await harp.tenant.cluster.lookout.known()
        finding = cluster_finding(harp.tenant.cluster.status())
        assert (finding.state, "logs" in finding.cause) == ("ok", True)
    async with running(tmp_path, NODES) as (harp, _, __):
        cluster = harp.tenant.cluster
        assert cluster is not None
        await until(lambda: cluster.lookout.trouble)
        assert cluster_finding(cluster.status()).state == "failed"


async def test_without_kubernetes_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from harp.app import Harp
from harp.settings import load
async def main():
    harp = Harp(load({**ENV}))
    await harp.start()
    from harp.control import api
    await harp.stop(drain=0)
ENV = {"HP_SHARED_KEY": "the shared key of these tests", "NC_INSTANCE_URL": "http://127.0.0.1:1",
       "HP_EXAPPS_ADDRESS": "127.0.0.1:0", "HP_FRP_ADDRESS": "127.0.0.1:0", "HP_FRP_DISABLE_TLS": "true",
       "HP_ADMIN_ADDRESS": "127.0.0.1:0", "HP_CERTS_DIR": sys.argv[1]}
asyncio.run(main())
print([name for name in sys.modules if "kubernetes" in name and name != "harp.settings.kubernetes"])
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert "[]" in out.decode().splitlines()  # beside lines of the log
