"""What is known of an engine."""

from __future__ import annotations

from msgspec import Struct

from harp.policy.docker_api import ApiRange


class EngineFacts(Struct, frozen=True):
    """What an engine says of itself."""

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
