"""The pods behind a Service."""

from __future__ import annotations

import msgspec
import pytest

from harp.policy.kubernetes_endpoints import endpoints_of
from harp.policy.kubernetes_places import Exposure, Found
from harp.policy.kubernetes_shapes import ClusterService, EndpointSlice

SERVICE = msgspec.convert({"metadata": {"name": "nc-app-x"}, "spec": {"type": "ClusterIP"}}, ClusterService)
HEADLESS = msgspec.convert(
    {"metadata": {"name": "nc-app-x"}, "spec": {"type": "ClusterIP", "clusterIP": "None"}}, ClusterService
)


def piece(
    *pods: dict[str, object], family: str = "IPv4", service: str = "nc-app-x", port: object = 23000
) -> EndpointSlice:
    body = {
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "endpoints": list(pods),
        "ports": [{"port": port}] if port else None,
    }
    return msgspec.convert(body, EndpointSlice)


def pod(address: str, **conditions: bool | None) -> dict[str, object]:
    return {"addresses": [address], "conditions": conditions, "targetRef": {"uid": f"uid of {address}"}}


def hosts(
    *slices: EndpointSlice, exposure: Exposure | None = None, service: ClusterService | None = SERVICE
) -> list[str]:
    return [one.host for one in endpoints_of(Found(exposure or Exposure(), service, "x"), slices)]


def test_they_come_from_all_slices_of_the_service_and_from_no_other() -> None:
    slices = [piece(pod("10.1.0.2"), pod("10.1.0.1")), piece(pod("10.1.0.3")), piece(pod("10.1.0.9"), service="other")]
    assert hosts(*slices) == ["10.1.0.1", "10.1.0.2", "10.1.0.3"]
    assert hosts(*slices, service=HEADLESS) == ["10.1.0.1", "10.1.0.2", "10.1.0.3"]


def test_only_those_that_are_ready_count_and_unsaid_is_ready() -> None:
    ending = pod("10.1.0.2", ready=False, serving=True, terminating=True)
    assert hosts(piece(pod("10.1.0.1", ready=True), ending, pod("10.1.0.3", ready=None), pod("10.1.0.4"))) == [
        "10.1.0.1",
        "10.1.0.3",
        "10.1.0.4",
    ]


def test_a_pod_with_two_addresses_is_one() -> None:
    assert hosts(piece(pod("fd00::1"), family="IPv6"), piece(pod("10.1.0.1"))) == ["10.1.0.1"]
    assert hosts(piece(pod("fd00::1"), family="IPv6")) == ["fd00::1"]
    assert hosts(piece(pod("a.example.com"), family="FQDN")) == []


def test_a_pod_that_stands_in_two_slices_for_a_moment_is_one() -> None:
    assert hosts(piece(pod("10.1.0.1")), piece(pod("10.1.0.1"))) == ["10.1.0.1"]


@pytest.mark.parametrize(
    "exposure", [Exposure("nodeport"), Exposure("loadbalancer"), Exposure("clusterip", "10.9.9.9")]
)
def test_pods_are_for_those_that_are_reached_by_cluster_ip(exposure: Exposure) -> None:
    assert hosts(piece(pod("10.1.0.1")), exposure=exposure) == []


def test_without_a_service_or_a_port_there_are_none() -> None:
    assert hosts(piece(pod("10.1.0.1")), service=None) == []
    assert hosts(piece(pod("10.1.0.1"), port=None)) == []
    assert hosts(piece({"addresses": []})) == []


def test_a_mark_is_of_one_pod_and_says_nothing_of_it() -> None:
    first, second = endpoints_of(Found(Exposure(), SERVICE, "x"), [piece(pod("10.1.0.1"), pod("10.1.0.2"))])
    again = msgspec.json.decode(msgspec.json.encode(piece(pod("10.1.0.1"))), type=EndpointSlice)
    assert first.mark != second.mark
    assert endpoints_of(Found(Exposure(), SERVICE, "x"), [again]) == (first,)
    assert len(first.mark) == 16
    assert set(first.mark) <= set("0123456789abcdef")
