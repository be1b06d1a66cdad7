"""Answers of engines: JSON in, checked values out; absent and unknown keys are fine. Also logs and errors."""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import msgspec
from msgspec import Struct

from harp.engines.errors import EngineError
from harp.wire.decoding import decoded

T = TypeVar("T")

LONGEST_MESSAGE = 1000  # characters of the engine's own words


def parse(body: bytes, shape: type[T]) -> T:
    """Read an answer's JSON as `shape`. Raises EngineError, whatever an engine sends."""
    return decoded(body, shape, lambda wrong: EngineError(f"the engine's answer is not what its API promises: {wrong}"))


class Reply(Struct, frozen=True, rename="pascal"):
    """Base of the JSON that engines send; absent and unknown keys are fine."""


class Component(Reply, frozen=True):
    name: str = ""


class Version(Reply, frozen=True):
    version: str = ""
    api_version: str = ""
    min_api_version: str = msgspec.field(default="", name="MinAPIVersion")
    components: list[Component] | None = None


class Info(Reply, frozen=True):
    """What an engine can do; the values of `runtimes` do not matter."""

    runtimes: dict[str, object] | None = None
    cdi_spec_dirs: list[str] | None = msgspec.field(default=None, name="CDISpecDirs")


class Check(Reply, frozen=True):
    output: str = ""


class Health(Reply, frozen=True):
    status: str = ""
    log: list[Check] | None = None


class ContainerState(Reply, frozen=True):
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
    """What the engine reports of a container."""

    id: str = ""
    name: str = ""
    image: str = ""
    restart_count: int = 0
    config: Config = Config()
    state: ContainerState = ContainerState()
    clock: float = 0.0  # Unix seconds on the engine's clock when it said so, rounded down; 0 = not known

    def ran_for(self) -> float:
        """Return how many seconds at least it had run by the engine's clock; 0 when that is not known."""
        try:
            began = datetime.fromisoformat(self.state.started_at).timestamp()
        except (ValueError, OverflowError):
            return 0.0
        return max(self.clock - began, 0.0) if began > 0 else 0.0


def clock_of(date: str) -> float:
    """Return the engine's clock in Unix seconds from the Date of an answer; 0 when there is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


class Volume(Reply, frozen=True):
    labels: dict[str, str] | None = None


class Created(Reply, frozen=True):
    id: str = ""


class Listed(Reply, frozen=True):
    id: str = ""


class Image(Reply, frozen=True):
    size: int = 0


class ErrorBody(Struct, frozen=True):
    """An error's body. Docker says `message`; podman adds `cause` and `response`."""

    message: str = ""


def message_of(body: bytes) -> str:
    """Return the engine's own words on one line."""
    try:
        text = parse(body, ErrorBody).message
    except EngineError:
        text = body[: 4 * LONGEST_MESSAGE].decode("utf-8", "replace")
    return words(text) or "no reason given"


def words(text: str) -> str:
    """Return `text` fit to be shown: one line, no control sequences, limited length."""
    return " ".join(plain(text).split())[:LONGEST_MESSAGE]


_FRAME = re.compile(rb"[\x00-\x02]\x00\x00\x00")
# ECMA-48: CSI with its parameters, OSC up to its end, any other escape; and the control characters but tab and newline.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """Return `text` without the colours and cursor movements of a terminal."""
    return _CONTROL.sub("", text)


def log_lines(raw: bytes, most: int) -> list[str]:
    """Return the last `most` lines of a container's log, which is framed unless it has a terminal (A 3)."""
    parts = []
    if _FRAME.match(raw):
        at = 0
        while at + 8 <= len(raw):
            size = int.from_bytes(raw[at + 4 : at + 8])
            parts.append(raw[at + 8 : at + 8 + size])
            at += 8 + size
    text = plain((b"".join(parts) or raw).decode("utf-8", "replace").replace("\r", "\n"))
    return [line.rstrip() for line in text.splitlines() if line.strip()][-most:]
