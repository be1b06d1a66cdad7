"""Facts about engines and the cluster."""

from __future__ import annotations

from msgspec import Struct

from harp.policy.docker_api import ApiRange


class EngineFacts(Struct, frozen=True):
    """What an engine reports about itself."""

    version: str
    api: ApiRange
    podman: bool


class EngineStatus(Struct, frozen=True):
    """An engine as people see it."""

    port: int
    name: str
    facts: EngineFacts | None  # None = has never answered
    last_seen: float | None  # Unix seconds of its last answer about itself
    trouble: str  # why it could not be asked last time, "" when it could


class ClusterExApp(Struct, frozen=True):
    """An ExApp in the cluster, or what is left of one."""

    name: str  # of its Deployment, or of what is left
    app: str  # its id, "" = not known
    replicas: int
    ready: int
    address: str  # host and port, "" = not exposed
    note: str  # what is wrong with it


class ClusterStatus(Struct, frozen=True):
    """The Kubernetes cluster as people see it."""

    api_server: str
    namespace: str
    trouble: str  # why it was not read last time, or why nothing can be deployed
    missing_rights: dict[str, str]  # by feature
    exapps: tuple[ClusterExApp, ...]
