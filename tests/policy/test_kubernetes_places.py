"""Addresses and starts, judged from what a cluster says of its objects (K 4.4, K 6)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harp.policy.container import Names, Owner
from harp.policy.kubernetes_names import ClusterNames
from harp.policy.kubernetes_places import Exposure, Place, ServiceWish, exposed, place_of, remembered
from harp.policy.kubernetes_pods import view
from harp.policy.kubernetes_shapes import ClusterService, Deployment, Metadata, Node, Pod

NAMES = ClusterNames(Names("app-x"))
OWNER = Owner("mine")


def service(kind: str, **spec: Any) -> ClusterService:
    body = {"metadata": {"name": "nc-app-app-x"}, "spec": {"type": kind, "ports": [{"port": 80}], **spec}}
    return msgspec.convert(body, ClusterService)


def node(name: str, addresses: dict[str, str], *, ready: bool = True) -> Node:
    status = {
        "addresses": [{"type": kind, "address": address} for kind, address in addresses.items()],
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }
    return msgspec.convert({"metadata": {"name": name}, "status": status}, Node)


@pytest.mark.parametrize(
    ("exposure", "found", "trouble"),
    [
        (Exposure("nodeport"), service("NodePort"), "Service has no nodePort assigned."),
        (Exposure("nodeport"), service("NodePort", ports=None), "Service has no nodePort assigned."),
        (Exposure(), service("ClusterIP", ports=None), "has no port"),
        (Exposure(), service("ExternalName"), "is of type ExternalName"),
        (Exposure("loadbalancer"), service("LoadBalancer"), "has no address yet"),
        (Exposure(), None, "its Service is not there"),
    ],
)
def test_what_leads_nowhere_says_why(exposure: Exposure, found: ClusterService | None, trouble: str) -> None:
    place = place_of(exposure, found, (), "ns")
    assert (place.host, trouble in place.trouble) == ("", True)


@pytest.mark.parametrize(
    ("exposure", "host"),
    [
        (Exposure("nodeport"), "10.0.0.1"),
        (Exposure("nodeport", node_address_type="ExternalIP"), "192.0.2.1"),
        (Exposure("nodeport", node_name="b"), "node-b"),
        (Exposure("nodeport", node="10.0.0.9"), "10.0.0.1"),  # which is gone
        (Exposure("nodeport", node_name="c"), ""),
        (Exposure("nodeport", node_name="d"), ""),
    ],
)
def test_a_node_is_chosen_by_readiness_name_and_kind_of_address(exposure: Exposure, host: str) -> None:
    nodes = [
        node("z", {"InternalIP": "10.0.0.7"}, ready=False),
        node("a", {"InternalIP": "10.0.0.1", "ExternalIP": "192.0.2.1"}),
        node("b", {"Hostname": "node-b"}),
        node("d", {}),
    ]
    found = service("NodePort", ports=[{"port": 80, "nodePort": 30000}])
    assert place_of(exposure, found, nodes, "ns") == Place(
        host, 30000 if host else 0, place_of(exposure, found, nodes, "ns").trouble
    )
    assert bool(host) != bool(place_of(exposure, found, nodes, "ns").trouble)


def test_what_was_remembered_comes_back_and_nonsense_does_not() -> None:
    exposure = Exposure("nodeport", "node", 0, "ExternalIP", "a", "pool=ai", 5.0, "10.0.0.1")
    kept = {key: value for key, value in exposure.annotations().items() if value is not None}
    assert remembered(Metadata(annotations=kept)) == exposure
    assert remembered(Metadata(annotations={"harp.nextcloud/exposed": "{"})) is None
    theirs = {
        f"appapi.nextcloud.com/{key}": value for key, value in (("expose-type", "manual"), ("upstream-host", "h"))
    }
    assert remembered(Metadata(annotations=theirs)) is None  # without a port it is not complete
    assert remembered(Metadata()) is None


def test_a_service_without_labels_of_an_exapp_leads_nowhere() -> None:
    assert exposed([Deployment(metadata=Metadata(name="x"))], [service("ClusterIP")]) == {}
    assert exposed([], [service("ExternalName")]) == {}


def test_a_service_has_what_its_type_can_have() -> None:
    wish = ServiceWish(
        "loadbalancer", 23000, 80, None, "Local", "192.0.2.9", {"a": "b"}, {"team": "x", "app": "theirs"}
    )
    body: Any = wish.body(NAMES, OWNER)
    assert body["spec"]["externalTrafficPolicy"] == "Local"
    assert body["spec"]["loadBalancerIP"] == "192.0.2.9"
    assert body["spec"]["ports"][0] == {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 23000}
    assert (body["metadata"]["labels"]["team"], body["metadata"]["labels"]["app"]) == ("x", "nc-app-app-x")
    found = msgspec.convert(body, ClusterService)
    assert wish.differences(found, NAMES, OWNER) == []
    plain = ServiceWish("clusterip", 23000)
    assert plain.differences(found, NAMES, OWNER) == ["type", "port"]
    patch: Any = plain.patch(NAMES, OWNER)
    assert patch["spec"]["externalTrafficPolicy"] is None
    assert patch["spec"]["loadBalancerIP"] is None


@pytest.mark.parametrize(
    ("status", "started", "reason"),
    [
        ({"phase": "Succeeded"}, True, None),
        ({"phase": "Unknown", "reason": "NodeLost"}, False, "NodeLost"),
        (
            {
                "containerStatuses": [
                    {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no s"}}}
                ]
            },
            False,
            "CreateContainerConfigError: no s",
        ),
    ],
)
def test_ends_of_a_start(status: dict[str, Any], started: bool, reason: str | None) -> None:
    outcome = view(msgspec.convert({"status": status}, Pod), probes=True, settled=False).outcome
    assert outcome is not None
    assert (outcome.started, outcome.reason) == (started, reason)


@pytest.mark.parametrize(
    ("status", "waits_for"),
    [
        ({"phase": "Pending"}, "container"),
        ({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]}, "schedule"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]}, "image"),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 1}]},
            "container",
        ),
        ({"containerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]}, "container"),
        ({"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}, "ready"),
    ],
)
def test_what_a_start_waits_for(status: dict[str, Any], waits_for: str) -> None:
    seen = view(msgspec.convert({"status": status}, Pod), probes=True, settled=False)
    assert (seen.outcome, seen.waits_for) == (None, waits_for)
