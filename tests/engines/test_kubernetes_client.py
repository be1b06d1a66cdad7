"""Talking to an API server: tokens and authorities that change, bounded calls, the cluster's words (K 2)."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

from harp.engines.errors import EngineConflict, EngineError, EngineMissing, EngineRefused, EngineUnreachable
from harp.engines.kubernetes.client import ClusterApi
from harp.engines.kubernetes.objects import Namespace
from harp.engines.kubernetes.rights import Rights
from harp.policy.container import Owner
from harp.policy.kubernetes_rights import DEPLOY, FEATURES, LOGS, SECRETS
from harp.policy.kubernetes_shapes import Bare, ObjectList
from harp.settings import load
from tests.fakes.clock import Clock
from tests.fakes.cluster import NAMESPACE, TOKEN, FakeCluster
from tests.fakes.waiting import settled

pytestmark = pytest.mark.hasty

DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"


@asynccontextmanager
async def client(clock: Clock, url: str, **env: str) -> AsyncIterator[ClusterApi]:
    settings = load(
        {
            "HP_SHARED_KEY": "the shared key of these tests",
            "NC_INSTANCE_URL": "https://cloud.example.com",
            "HP_K8S_ENABLED": "true",
            "HP_K8S_API_SERVER": url,
            "HP_K8S_BEARER_TOKEN": TOKEN,
            **env,
        }
    )
    api = ClusterApi(settings.kubernetes, clock)
    try:
        yield api
    finally:
        await api.close()


async def test_a_token_that_was_replaced_in_its_file_is_used(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    cluster, clock = FakeCluster(), Clock()
    cluster.token = "old"
    env = {"HP_K8S_BEARER_TOKEN": "", "HP_K8S_BEARER_TOKEN_FILE": str(file)}
    async with cluster.serving(), client(clock, cluster.url, **env) as api:
        await api.call("GET", "/api")
        file.write_text("new\n")
        cluster.token = "new"
        await api.call("GET", "/api")  # refused at first, and tried again with what the file says now


async def test_16_a_token_whose_file_is_slow_to_read_stops_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "token"
    os.mkfifo(file)  # reading it waits for a writer
    cluster = FakeCluster()
    env = {"HP_K8S_BEARER_TOKEN": "", "HP_K8S_BEARER_TOKEN_FILE": str(file)}
    async with cluster.serving(), client(Clock(), cluster.url, **env) as api:
        call = asyncio.create_task(api.call("GET", "/api"))
        await settled()  # the loop goes on
        assert not call.done()
        await asyncio.to_thread(file.write_text, TOKEN)
        assert (await call).status == 200


async def test_an_empty_token_is_not_configured(tmp_path: Path) -> None:
    env = {"HP_K8S_BEARER_TOKEN": "", "HP_K8S_BEARER_TOKEN_FILE": str(tmp_path / "none")}
    async with client(Clock(), "http://127.0.0.1:1", **env) as api:
        with pytest.raises(EngineUnreachable, match=r"Kubernetes token is not configured\."):
            await api.call("GET", "/api")


@pytest.mark.parametrize(("name", "kind"), [("none", EngineMissing), ("there", EngineConflict), ("bad", EngineRefused)])
async def test_refusals_have_the_clusters_words(name: str, kind: type[EngineRefused]) -> None:
    cluster = FakeCluster()
    cluster.put("deployments", {"metadata": {"name": "there"}})
    async with cluster.serving(), client(Clock(), cluster.url) as api:
        with pytest.raises(kind) as raised:
            if name == "none":
                await api.get(f"{DEPLOYMENTS}/none", Bare)
            elif name == "there":
                await api.call("POST", DEPLOYMENTS, body={"metadata": {"name": "there"}})
            else:
                await api.call("POST", DEPLOYMENTS, body={"metadata": {"name": "bad", "labels": {"a": "no."}}})
        assert name in raised.value.message


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_what_is_busy_for_a_moment_is_asked_again(status: int) -> None:
    cluster = FakeCluster()
    cluster.errors["list", "deployments"] = [(status, "later")]
    async with cluster.serving(), client(Clock(), cluster.url) as api:
        await api.call("GET", DEPLOYMENTS)


async def test_16_a_call_has_an_end() -> None:
    silent = asyncio.Event()

    async def never(request: web.Request) -> web.Response:
        await silent.wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/api", never)
    async with TestServer(app) as server, client(Clock(), f"http://{server.host}:{server.port}") as api:
        with pytest.raises(EngineUnreachable, match=r"Error communicating with Kubernetes API: .* no answer within"):
            await api.call("GET", "/api", limit=0.1)
        silent.set()


async def test_an_answer_that_is_no_json_is_an_error_in_words() -> None:
    async def nonsense(request: web.Request) -> web.Response:
        return web.Response(body=b"<html>")

    app = web.Application()
    app.router.add_get("/x", nonsense)
    async with TestServer(app) as server, client(Clock(), f"http://{server.host}:{server.port}") as api:
        with pytest.raises(EngineError, match="not what its API promises"):
            await api.get("/x", Bare)


async def test_authorities_that_were_replaced_are_used(tmp_path: Path) -> None:
    file, clock = tmp_path / "ca.crt", Clock()

    async def fine(request: web.Request) -> web.Response:
        return web.json_response({})

    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    stranger.cert_pem.write_to_path(file)
    app = web.Application()
    app.router.add_get("/api", fine)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    async with client(clock, f"https://127.0.0.1:{server.port}", HP_K8S_CA_FILE=str(file)) as api:
        with pytest.raises(EngineUnreachable, match="certificate"):
            await api.call("GET", "/api")
        authority.cert_pem.write_to_path(file)
        os.utime(file, ns=(1, 1))
        await api.call("GET", "/api")
    await server.close()


async def test_rights_are_reviewed_again_after_ten_minutes() -> None:
    cluster, clock = FakeCluster([DEPLOY]), Clock()
    async with cluster.serving(), client(clock, cluster.url) as api:
        rights = Rights(api, NAMESPACE, clock)
        assert (rights.may(DEPLOY), rights.may(LOGS)) == (True, False)  # nothing more is assumed
        await rights.fresh()
        assert (rights.may(LOGS), rights.problem()) == (False, "")
        cluster.allow(FEATURES)
        await rights.fresh()
        assert not rights.may(SECRETS)
        clock.move(601)
        await rights.fresh()
        assert rights.may(SECRETS)
        assert rights.lacking() == {}
        cluster.allow([])
        clock.move(601)
        await rights.fresh()
        assert rights.problem().startswith(f"the Role in namespace {NAMESPACE} lacks: get, list, create")


async def test_a_namespace_asks_with_the_labels_of_exapps() -> None:
    cluster = FakeCluster()
    cluster.put("deployments", {"metadata": {"name": "foreign"}})
    async with cluster.serving(), client(Clock(), cluster.url) as api:
        assert (await Namespace(api, NAMESPACE, Owner("mine")).exapp_deployments()).items == []


async def test_a_review_that_fails_leaves_what_was_known() -> None:
    cluster, clock = FakeCluster(FEATURES), Clock()
    async with cluster.serving(), client(clock, cluster.url) as api:
        rights = Rights(api, NAMESPACE, clock)
        assert (rights.lacking(), rights.problem()) == ({}, "")
        await rights.fresh()
        assert rights.may(LOGS)
        cluster.token = "another"
        clock.move(601)
        await rights.fresh()
        assert rights.may(LOGS)


async def test_an_api_server_is_needed() -> None:
    async with client(Clock(), "http://127.0.0.1:1") as api:
        api.server = ""
        with pytest.raises(EngineUnreachable):
            await api.call("GET", "/api")


@pytest.mark.parametrize("content", ["", "not a certificate"])
async def test_authorities_that_cannot_be_read_are_said(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(content)
    async with client(Clock(), "https://127.0.0.1:1", HP_K8S_CA_FILE=str(file)) as api:
        with pytest.raises(EngineUnreachable, match="HP_K8S_CA_FILE"):
            await api.call("GET", "/api")


async def test_without_verification_any_certificate_will_do(tmp_path: Path) -> None:
    async def fine(request: web.Request) -> web.Response:
        return web.json_response({"items": [{"metadata": {"name": "x" * 50}}] * 2000})

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("elsewhere.example.com").configure_cert(context)
    app = web.Application()
    app.router.add_get("/list", fine)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    async with client(Clock(), f"https://127.0.0.1:{server.port}", HP_K8S_VERIFY_SSL="false") as api:
        assert len((await api.get("/list", ObjectList[Bare])).items) == 2000
    await server.close()


@pytest.mark.parametrize("status", [200, 410])
async def test_a_watch_that_breaks_or_is_refused_is_an_error(status: int) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        if status != 200:
            return web.Response(status=status, body=b"<html>")
        response = web.StreamResponse(headers={"content-length": "1000"})
        await response.prepare(request)
        await response.write(b"not json\n")
        return response

    app = web.Application()
    app.router.add_get("/x", broken)
    async with TestServer(app) as server, client(Clock(), f"http://{server.host}:{server.port}") as api:
        with pytest.raises(EngineError):
            async for _ in api.watch("/x", {}, seconds=5, silence=1.0):
                pass
