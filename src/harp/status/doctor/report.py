"""The report: one finding per thing that was looked at, with its state, cause and fix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

State = Literal["ok", "warning", "failed", "skipped"]


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    check: str  # "road.prefix": its name, which does not change; an ExApp's, engine's or file's own after a colon
    title: str
    state: State
    cause: str = ""  # what was seen
    fix: str = ""  # what to do about it


class DoctorReport(Struct, frozen=True):
    """Everything that was looked at, at one time."""

    made: float  # Unix seconds
    seconds: float  # it took
    version: str
    public_url: str
    state: State  # the worst of all findings
    findings: tuple[Finding, ...]


def ok(check: str, title: str, cause: str = "") -> Finding:
    """In order; `cause` may say how that is known."""
    return Finding(check, title, "ok", cause)


def warning(check: str, title: str, cause: str, fix: str) -> Finding:
    """It works, but not permanently or not for everyone."""
    return Finding(check, title, "warning", cause, fix)


def failed(check: str, title: str, cause: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(check, title, "failed", cause, fix)


def skipped(check: str, title: str, cause: str, fix: str = "") -> Finding:
    """Nothing can be said; `cause` says why."""
    return Finding(check, title, "skipped", cause, fix)


def worst(findings: Iterable[Finding]) -> State:
    """Return the state of all of them together."""
    states = {finding.state for finding in findings}
    return "failed" if "failed" in states else "warning" if "warning" in states else "ok"
