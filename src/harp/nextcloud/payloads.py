"""JSON about ExApps and visitors -> values (A 4.3, A 5.1, A 5.2).

As lenient as databases make it necessary: numbers may arrive as text. Keys that we do not know are ignored.
"""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

from harp.policy.exapp import ANONYMOUS, ExApp, Level, Route, Visitor
from harp.wire.decoding import decoded

_LINE = re.compile(r"[^\x00-\x1f\x7f]*\Z")  # what a header may contain


class _Route(Struct):
    url: str
    access_level: Annotated[int, Meta(ge=0, le=2)]
    bruteforce_protection: list[int] | None = None


class _Record(Struct):
    exapp_token: str
    exapp_version: str
    host: str
    port: Annotated[int, Meta(ge=1, le=65535)]
    routes: list[_Route] = []


class _User(Struct):
    user_id: str | None
    access_level: Annotated[int, Meta(ge=0, le=2)]


def read_record(app_id: str, body: bytes) -> ExApp:
    """Return the record of an ExApp, by its lower-cased id. Raises ValueError with a text without secrets."""
    record = decoded(body, _Record, _unusable, strict=False)
    host = record.host.strip("[]")
    if not host or not _LINE.match(host):
        raise ValueError("`host` is empty or not a host")
    if not _LINE.match(record.exapp_version):
        raise ValueError("`exapp_version` contains a control character")
    routes = tuple(
        Route(route.url, Level(route.access_level), frozenset(route.bruteforce_protection or ()))
        for route in record.routes
    )
    return ExApp(app_id, record.exapp_token, record.exapp_version, host, record.port, routes)


def read_visitor(body: bytes) -> Visitor:
    """Return who is logged in. Raises ValueError. A visitor without an id is anonymous, whatever the level."""
    user = decoded(body, _User, _unusable, strict=False)
    return Visitor(user.user_id, Level(user.access_level)) if user.user_id else ANONYMOUS


def _unusable(error: Exception) -> ValueError:
    return ValueError(str(error))
