"""The pods behind a Service, as a cluster's EndpointSlices list them."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from msgspec import Struct

from harp.policy.kubernetes_names import SERVICE_NAME
from harp.policy.kubernetes_places import CLUSTER_IP, Found
from harp.policy.kubernetes_shapes import EndpointSlice

FAMILIES = ("IPv4", "IPv6")  # in the order of preference


class Endpoint(Struct, frozen=True):
    """One pod that is ready. `mark` is its own, and says nothing else: clients see it in a cookie."""

    host: str
    port: int
    mark: str


def endpoints_of(found: Found, slices: Iterable[EndpointSlice]) -> tuple[Endpoint, ...]:
    """Return the ready pods of an ExApp that is reached by cluster IP, in an order of their own.

    None for other ways.
    """
    service, exposure = found.service, found.exposure
    if service is None or service.spec.type != "ClusterIP" or exposure.type != CLUSTER_IP or exposure.host:
        return ()
    ours = [one for one in slices if one.metadata.label(SERVICE_NAME) == service.metadata.name]
    for family in FAMILIES:
        ready = {endpoint for one in ours if one.address_type == family for endpoint in _ready(one)}
        if ready:
            return tuple(sorted(ready, key=lambda endpoint: endpoint.host))
    return ()


def _ready(found: EndpointSlice) -> list[Endpoint]:
    """Return the ready ones: a Service has one port, and no word means ready (API of discovery.k8s.io/v1)."""
    port = next((one.port for one in found.ports or () if one.port), 0)
    if not port:
        return []
    return [
        Endpoint(one.addresses[0], port, sha256(f"{one.target_ref.uid} {one.addresses[0]}".encode()).hexdigest()[:16])
        for one in found.endpoints or ()
        if one.conditions.ready is not False and one.addresses
    ]
