"""Where the cluster's ExApps are: learned once, then followed, and kept while the cluster is away (K 6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from typing import Any

import pytest

from harp.engines.kubernetes.client import ClusterApi
from harp.engines.kubernetes.lookout import Lookout, LookoutPace
from harp.engines.kubernetes.objects import Namespace
from harp.engines.kubernetes.rights import Rights
from harp.policy.container import Owner
from harp.policy.exapp import ExApp
from harp.policy.kubernetes_names import APP, INSTANCE
from harp.policy.kubernetes_places import Exposure
from harp.policy.kubernetes_rights import DEPLOY, ENDPOINTS, NODES, WATCH, Feature
from harp.settings import load
from tests.fakes.cluster import NAMESPACE, TOKEN, FakeCluster
from tests.fakes.waiting import until

pytestmark = pytest.mark.hasty

RECORD = ExApp("app-x", "t", "1.0", "app-x", 23000)
OTHER = ExApp("docker-app", "t", "1.0", "10.1.1.1", 23001)
LABELS = {"app.kubernetes.io/part-of": "nc-app-app-x", "app.kubernetes.io/component": "exapp"}
QUICK = LookoutPace(again=0.2, soon=0.05, retry=0.05, longest=0.1, watch=30)
ASKED = LookoutPace(again=600, soon=0.05, watch=30)  # only a doubt has the cluster available again


def deployment(
    name: str = "nc-app-app-x", exposure: Exposure | None = None, annotations: dict[str, str] | None = None
) -> dict[str, Any]:
    remembered = {} if exposure is None else {key: value for key, value in exposure.annotations().items() if value}
    metadata = {"name": name, "labels": dict(LABELS), "annotations": {**remembered, **(annotations or {})}}
    return {"metadata": metadata, "spec": {"replicas": 1}}


def service(address: str, name: str = "nc-app-app-x", **spec: Any) -> dict[str, Any]:
    labels = {**LABELS, "app.kubernetes.io/managed-by": "harp"}
    port = {"port": 23000, "targetPort": 23000}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": address, "ports": [port], **spec},
    }


def node(name: str, address: str, ready: str = "True") -> dict[str, Any]:
    status = {
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{"type": "Ready", "status": ready}],
    }
    return {"metadata": {"name": name}, "status": status}


@asynccontextmanager
async def looking(cluster: FakeCluster, pace: LookoutPace = QUICK) -> AsyncIterator[Lookout]:
    """A lookout at work."""
    env = {
        "HP_SHARED_KEY": "the shared key of these tests",
        "NC_INSTANCE_URL": "https://cloud.example.com",
        "HP_K8S_ENABLED": "true",
        "HP_K8S_API_SERVER": cluster.url,
        "HP_K8S_BEARER_TOKEN": TOKEN,
    }
    now = asyncio.get_running_loop().time
    api = ClusterApi(load(env).kubernetes, now)
    lookout = Lookout(Namespace(api, NAMESPACE, Owner("mine")), Rights(api, NAMESPACE, now), now, pace)
    run = asyncio.create_task(lookout.run())
    try:
        await lookout.known()
        yield lookout
    finally:
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run
        await api.close()


@asynccontextmanager
async def looking_at(*features: Feature, objects: Iterable[tuple[str, Any]]) -> AsyncIterator[Any]:
    cluster = FakeCluster([DEPLOY, NODES, *features])
    for resource, body in objects:
        cluster.put(resource, body)
    async with cluster.serving(), looking(cluster) as lookout:
        yield cluster, lookout


def place(lookout: Lookout, record: ExApp = RECORD) -> tuple[str, int]:
    placed = lookout.placed(record)
    return placed.host, placed.port


@pytest.mark.parametrize("features", [(), (WATCH,)])
async def test_8_a_service_that_is_made_anew_is_followed(features: tuple[Feature, ...]) -> None:
    there = [("deployments", deployment()), ("services", service("10.96.0.5"))]
    async with looking_at(*features, objects=there) as (cluster, lookout):
        moves: list[bool] = []
        lookout.moved = lambda: moves.append(True)
        assert place(lookout) == ("10.96.0.5", 23000)
        cluster.put("services", service("10.96.0.9"))
        await until(lambda: place(lookout) == ("10.96.0.9", 23000))
        assert moves


async def test_7_other_apps_are_left_where_nextcloud_says_and_never_asked_for() -> None:
    cluster = FakeCluster([DEPLOY])
    cluster.put("services", service("10.96.0.5"))
    async with cluster.serving(), looking(cluster, ASKED) as lookout:
        calls = len(cluster.calls)
        assert lookout.placed(OTHER) is OTHER
        lookout.doubt(OTHER.app_id)
        with pytest.raises(TimeoutError):
            await until(lambda: len(cluster.calls) > calls, seconds=10 * ASKED.soon)


async def test_7_addresses_are_kept_while_the_cluster_is_away() -> None:
    cluster = FakeCluster([DEPLOY])
    cluster.put("services", service("10.96.0.5"))
    async with cluster.serving(), looking(cluster) as lookout:
        cluster.errors["list", "services"] = [(500, "etcd is away")] * 100
        await until(lambda: "etcd is away" in lookout.trouble)
        assert place(lookout) == ("10.96.0.5", 23000)
        cluster.errors.clear()
        cluster.put("services", service("10.96.0.6"))
        await until(lambda: place(lookout) == ("10.96.0.6", 23000))
        assert lookout.trouble == ""


async def test_8_an_address_that_does_not_answer_is_looked_up_again_at_once() -> None:
    cluster = FakeCluster([DEPLOY])
    cluster.put("services", service("10.96.0.5"))
    async with cluster.serving(), looking(cluster, ASKED) as lookout:
        before = cluster.called("list", "services")
        lookout.doubt("app-x")
        await until(lambda: cluster.called("list", "services") > before)


async def test_a_watch_that_is_too_old_is_begun_anew() -> None:
    async with looking_at(WATCH, objects=[("services", service("10.96.0.5"))]) as (cluster, lookout):
        await until(lambda: cluster.called("watch", "services") >= 1)
        cluster.put("services", {"metadata": {"name": "x"}, "kind": "Status"})
        cluster.errors["watch", "services"] = [(410, "too old resource version")]
        cluster.put("services", service("10.96.0.7"))
        await until(lambda: place(lookout) == ("10.96.0.7", 23000))


async def test_manual_is_remembered_by_the_deployment() -> None:
    exposure = Exposure("manual", "10.9.9.9", 8080)
    async with looking_at(objects=[("deployments", deployment(exposure=exposure))]) as (_, lookout):
        assert place(lookout) == ("10.9.9.9", 8080)


async def test_manual_of_the_existing_harp_is_understood() -> None:
    annotations = {
        "appapi.nextcloud.com/expose-type": "manual",
        "appapi.nextcloud.com/upstream-host": "10.9.9.9",
        "appapi.nextcloud.com/upstream-port": "8080",
    }
    async with looking_at(objects=[("deployments", deployment(annotations=annotations))]) as (_, lookout):
        assert place(lookout) == ("10.9.9.9", 8080)


async def test_a_headless_service_is_found_by_name() -> None:
    there = [("deployments", deployment()), ("services", service("None"))]
    async with looking_at(objects=there) as (_, lookout):
        assert place(lookout) == (f"nc-app-app-x.{NAMESPACE}.svc", 23000)


async def test_6_a_node_that_fails_is_left_for_another_and_a_good_one_kept() -> None:
    ports = [{"port": 23000, "targetPort": 23000, "nodePort": 30100}]
    there = [
        ("nodes", node("a", "10.0.0.1")),
        ("nodes", node("b", "10.0.0.2")),
        ("deployments", deployment(exposure=Exposure("nodeport", node="10.0.0.2"))),
        ("services", service("10.96.0.5", type="NodePort", ports=ports)),
    ]
    async with looking_at(objects=there) as (cluster, lookout):
        assert place(lookout) == ("10.0.0.2", 30100)
        cluster.put("nodes", node("b", "10.0.0.2", ready="False"))
        await until(lambda: place(lookout) == ("10.0.0.1", 30100))


async def test_20_the_address_of_a_load_balancer_is_followed() -> None:
    balanced = service("10.96.0.5", type="LoadBalancer")
    balanced["status"] = {"loadBalancer": {"ingress": [{}, {"hostname": "lb-1.example.com"}]}}
    async with looking_at(WATCH, objects=[("services", balanced)]) as (cluster, lookout):
        assert place(lookout) == ("lb-1.example.com", 23000)
        moved = deepcopy(balanced)
        moved["status"]["loadBalancer"]["ingress"] = [{"ip": "192.0.2.9"}]
        cluster.put("services", moved)
        await until(lambda: place(lookout) == ("192.0.2.9", 23000))
        lost = deepcopy(balanced)
        lost["status"] = {}
        cluster.put("services", lost)
        await until(lambda: cluster.called("watch", "services") >= 1)
        assert place(lookout) == ("192.0.2.9", 23000)  # better than none


async def test_of_several_roles_the_one_that_was_exposed_last_counts() -> None:
    there = [
        ("deployments", deployment("nc-app-app-x-api", Exposure(at=2.0))),
        ("deployments", deployment("nc-app-app-x-old", Exposure(at=1.0))),
        ("services", service("10.96.0.2", "nc-app-app-x-api")),
        ("services", service("10.96.0.1", "nc-app-app-x-old")),
    ]
    async with looking_at(objects=there) as (_, lookout):
        assert place(lookout) == ("10.96.0.2", 23000)


async def test_a_service_whose_pods_are_gone_for_good_gives_way_to_one_with_pods() -> None:
    there = [
        ("services", service("10.96.0.1")),  # of an earlier version without roles
        ("deployments", deployment("nc-app-app-x-api")),
        ("services", service("10.96.0.2", "nc-app-app-x-api")),
    ]
    async with looking_at(objects=there) as (_, lookout):
        assert place(lookout) == ("10.96.0.2", 23000)


async def test_11_an_app_is_not_led_to_another_whose_name_becomes_the_same() -> None:
    there = [("deployments", deployment(annotations={APP: "app_x"})), ("services", service("10.96.0.5"))]
    async with looking_at(objects=there) as (_, lookout):
        assert lookout.placed(RECORD) is RECORD
        assert place(lookout, ExApp("app_x", "t", "1", "h", 1)) == ("10.96.0.5", 23000)


async def test_what_belongs_to_another_nextcloud_is_not_seen() -> None:
    theirs = service("10.96.0.5")
    theirs["metadata"]["labels"][INSTANCE] = "theirs"
    async with looking_at(objects=[("services", theirs)]) as (_, lookout):
        assert lookout.placed(RECORD) is RECORD
        assert lookout.services() == []


async def test_what_is_removed_is_forgotten_and_nodes_are_looked_at_beside_watching() -> None:
    ports = [{"port": 23000, "targetPort": 23000, "nodePort": 30100}]
    there = [
        ("nodes", node("a", "10.0.0.1")),
        ("services", service("10.96.0.5", type="NodePort", ports=ports)),
        ("deployments", deployment(exposure=Exposure("nodeport"))),
    ]
    async with looking_at(WATCH, objects=there) as (cluster, lookout):
        assert place(lookout) == ("10.0.0.1", 30100)
        cluster.put("nodes", node("a", "10.0.0.4"))
        await until(lambda: place(lookout) == ("10.0.0.4", 30100))
        cluster.errors["list", "nodes"] = [(403, "no")]
        await until(lambda: not cluster.errors["list", "nodes"])
        assert place(lookout) == ("10.0.0.4", 30100)
        for resource in ("services", "deployments"):
            cluster.remove(resource, "nc-app-app-x")
        await until(lambda: lookout.placed(RECORD) is RECORD)


async def test_a_doubt_has_a_watching_lookout_list_again() -> None:
    async with looking_at(WATCH, objects=[("services", service("10.96.0.5"))]) as (cluster, lookout):
        await until(lambda: cluster.called("watch", "services") == 1)
        lookout.doubt("app-x")
        await until(lambda: cluster.called("list", "services") == 2)


async def test_a_change_that_says_that_the_watch_is_too_old_has_it_list_again() -> None:
    async with looking_at(WATCH, objects=[("services", service("10.96.0.5"))]) as (cluster, lookout):
        await until(lambda: cluster.called("watch", "services") == 1)
        cluster.tell("services", "ERROR", {"kind": "Status", "code": 410})
        await until(lambda: cluster.called("list", "services") == 2)
        assert place(lookout) == ("10.96.0.5", 23000)


async def test_a_change_that_nobody_understands_has_it_list_again() -> None:
    async with looking_at(WATCH, objects=[("services", service("10.96.0.5"))]) as (cluster, lookout):
        await until(lambda: cluster.called("watch", "services") == 1)
        cluster.tell("services", "MODIFIED", {"metadata": 5})
        await until(lambda: cluster.called("list", "services") >= 2)
        assert place(lookout) == ("10.96.0.5", 23000)


@pytest.mark.parametrize("features", [(), (WATCH,)])
async def test_more_or_fewer_pods_are_told_of(features: tuple[Feature, ...]) -> None:
    there = [("deployments", {**deployment(), "status": {"readyReplicas": 1}}), ("services", service("10.96.0.5"))]
    async with looking_at(*features, objects=there) as (cluster, lookout):
        told: list[str] = []
        lookout.spread = told.append
        cluster.put("deployments", {**deployment(), "status": {"readyReplicas": 3}})
        await until(lambda: told == ["nc-app-app-x"])
        assert lookout.is_base("App-X", told[0])


# --- replicas


def endpoint_slice(*pods: str, unready: tuple[str, ...] = (), name: str = "nc-app-app-x-1") -> dict[str, Any]:
    labels = {**LABELS, "app.kubernetes.io/managed-by": "harp", "kubernetes.io/service-name": "nc-app-app-x"}
    found = [
        {"addresses": [pod], "conditions": {"ready": pod not in unready}, "targetRef": {"uid": f"uid of {pod}"}}
        for pod in (*pods, *unready)
    ]
    metadata = {"name": name, "labels": labels}
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": found, "ports": [{"port": 23000}]}


def several(lookout: Lookout) -> bool:
    found = lookout.replicas("app-x")
    return found is not None and found.several


def replicated(**annotations: str) -> list[tuple[str, Any]]:
    return [
        ("deployments", deployment(annotations=annotations)),
        ("services", service("10.96.0.5")),
        ("endpointslices", endpoint_slice("10.1.0.1", "10.1.0.2")),
    ]


async def test_replicas_are_known_where_the_cluster_may_be_asked_for_them_and_followed() -> None:
    async with looking_at(WATCH, ENDPOINTS, objects=replicated()) as (cluster, lookout):
        assert several(lookout)
        assert place(lookout) == ("10.96.0.5", 23000)  # the record's own address stays the Service's
        cluster.put("endpointslices", endpoint_slice("10.1.0.1", unready=("10.1.0.2",)))
        await until(lambda: not several(lookout))
        cluster.put("endpointslices", endpoint_slice("10.1.0.3", name="nc-app-app-x-2"))
        await until(lambda: several(lookout))
        cluster.remove("services", "nc-app-app-x")
        await until(lambda: not several(lookout))


@pytest.mark.parametrize("features", [(), (WATCH,), (ENDPOINTS,)])
async def test_without_the_rights_nobody_asks_for_replicas(features: tuple[Feature, ...]) -> None:
    async with looking_at(*features, objects=replicated()) as (cluster, lookout):
        assert lookout.replicas("app-x") is None
        assert cluster.called("list", "endpointslices") == cluster.called("watch", "endpointslices") == 0


@pytest.mark.parametrize(
    "exposure", [Exposure("nodeport"), Exposure("clusterip", "10.0.0.7"), Exposure("manual", "h", 1)]
)
async def test_pods_are_left_alone_where_harp_may_not_reach_them(exposure: Exposure) -> None:
    there = [("deployments", deployment(exposure=exposure)), *replicated()[1:]]
    async with looking_at(WATCH, ENDPOINTS, NODES, objects=there) as (_, lookout):
        assert lookout.replicas("app-x") is None


@pytest.mark.parametrize("annotations", [{}, {"harp.nextcloud/sticky": "true"}])
async def test_an_annotation_keeps_clients_at_their_replica(annotations: dict[str, str]) -> None:
    async with looking_at(WATCH, ENDPOINTS, objects=replicated(**annotations)) as (_, lookout):
        found = lookout.replicas("app-x")
        assert found is not None
        assert found.sticky is bool(annotations)
