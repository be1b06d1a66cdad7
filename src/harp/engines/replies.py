"""What engines answer: JSON in, checked values out; absent and unknown keys are fine. And their logs and errors."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from msgspec import Struct

from harp.engines.errors import EngineError

T = TypeVar("T")

LONGEST_MESSAGE = 1000  # characters of the engine's own words


def parse(body: bytes, shape: type[T]) -> T:
    """An answer's JSON as `shape`. Raises EngineError."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.DecodeError as error:
        raise EngineError(f"the engine's answer is not what its API promises: {error}") from error


class Reply(Struct, frozen=True, rename="pascal"):
    """Base of the JSON that engines send; absent and unknown keys are fine."""


class Component(Reply, frozen=True):
    name: str = ""


class Version(Reply, frozen=True):
    version: str = ""
    api_version: str = ""
    min_api_version: str = msgspec.field(default="", name="MinAPIVersion")
    components: list[Component] | None = None


class Check(Reply, frozen=True):
    output: str = ""


class Health(Reply, frozen=True):
    status: str = ""
    log: list[Check] | None = None


class State(Reply, frozen=True):
    """What a container does."""

    status: str = ""
    running: bool = False
    exit_code: int = 0
    oom_killed: bool = msgspec.field(default=False, name="OOMKilled")
    error: str = ""
    started_at: str = ""
    health: Health | None = None


class Config(Reply, frozen=True):
    image: str = ""
    labels: dict[str, str] | None = None
    stop_timeout: int | None = None


class Container(Reply, frozen=True):
    """What the engine tells of a container."""

    id: str = ""
    name: str = ""
    image: str = ""
    restart_count: int = 0
    config: Config = Config()
    state: State = State()


class Volume(Reply, frozen=True):
    labels: dict[str, str] | None = None


class Made(Reply, frozen=True):
    id: str = ""


class Listed(Reply, frozen=True):
    id: str = ""


class Image(Reply, frozen=True):
    size: int = 0


class Trouble(Struct, frozen=True):
    """An error's body. Docker says `message`; podman adds `cause` and `response`."""

    message: str = ""


def message_of(body: bytes) -> str:
    """The engine's own words on one line."""
    try:
        text = msgspec.json.decode(body, type=Trouble).message
    except msgspec.DecodeError:
        text = body.decode("utf-8", "replace")
    return " ".join(text.split())[:LONGEST_MESSAGE] or "no reason given"


_FRAME = re.compile(rb"[\x00-\x02]\x00\x00\x00")


def log_lines(raw: bytes) -> list[str]:
    """A container's log, which is framed unless it has a terminal (A 3), as lines."""
    parts = []
    if _FRAME.match(raw):
        at = 0
        while at + 8 <= len(raw):
            size = int.from_bytes(raw[at + 4 : at + 8])
            parts.append(raw[at + 8 : at + 8 + size])
            at += 8 + size
    text = (b"".join(parts) or raw).decode("utf-8", "replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()]
