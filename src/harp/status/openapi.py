"""The description of /api/v1 by OpenAPI 3.1, generated from the types of the answers."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from harp import __version__
from harp.engines.facts import ClusterStatus
from harp.status.doctor.report import DoctorReport
from harp.status.engines import EngineLine
from harp.status.problems import Problem
from harp.status.snapshot import (
    AppLine,
    BanLine,
    CertificateLine,
    MemberLine,
    Process,
    RequestLine,
    RequestLines,
    Snapshot,
    TunnelLine,
)

REFERENCE = "#/components/schemas/{name}"
JSON = "application/json"
ERROR = {
    "description": "What is wrong with the request.",
    "content": {JSON: {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}},
}
OURS = {
    "name": "Sec-Harp-Admin",
    "in": "header",
    "required": True,
    "description": "Any value. Scripts of web pages cannot send a header of such a name.",
    "schema": {"type": "string"},
}
LISTS: dict[str, tuple[type[Struct], str]] = {
    "apps": (AppLine, "The ExApps that HaRP knows, with what they have served"),
    "bans": (BanLine, "Addresses that are banned"),
    "certificates": (CertificateLine, "Certificates in use"),
    "engines": (EngineLine, "Docker engines"),
    "members": (MemberLine, "The processes that are this HaRP (HP_WORKERS); none where there is one"),
    "problems": (Problem, "What is wrong at this moment, and what to do; the worst first"),
    "tunnels": (TunnelLine, "Tunnel clients that are connected"),
}
VALUES: dict[str, tuple[type[Struct], str]] = {
    "process": (Process, "The process itself"),
    "requests": (RequestLines, "The last requests, and the last that failed"),
    "snapshot": (Snapshot, "All facts"),
}


def document() -> dict[str, Any]:
    """Return the description."""
    types = [kind for kind, _ in (*LISTS.values(), *VALUES.values())] + [RequestLine, DoctorReport, ClusterStatus]
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    named = dict(zip((kind.__name__ for kind in types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for name, (kind, summary) in LISTS.items():
        listed = {"type": "array", "items": named[kind.__name__]}
        paths[f"/{name}"] = {"get": _reading(summary, _object(name, listed))}
        if "instance" in kind.__struct_fields__:
            paths[f"/{name}"]["get"]["parameters"] = [INSTANCE]
    for name, (kind, summary) in VALUES.items():
        paths[f"/{name}"] = {"get": _reading(summary, named[kind.__name__])}
    paths["/cluster"] = {
        "get": _reading("The Kubernetes cluster; null without one", _object("cluster", named["ClusterStatus"]))
    }
    paths["/requests"]["get"]["parameters"] = [_query("app", "An ExApp's id: its requests only.")]
    paths |= _special(named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HaRP, admin API",
            "version": __version__,
            "summary": "What a running HaRP knows about itself, and the few things that may be changed.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{}, {"password": []}],
        "components": {
            "schemas": components,
            "securitySchemes": {
                "password": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "From other hosts: the shared key, or what is in HP_ADMIN_PASSWORD_FILE.",
                }
            },
        },
        "paths": paths,
    }


def _special(named: dict[str, Any]) -> dict[str, Any]:
    """Return what is more than plain reading."""
    word = {"type": "string"}
    report = named["DoctorReport"]
    follow = _reading("Requests as they end, as server-sent events; each event's data is a RequestLine", word)
    follow["parameters"] = [_query("app", "An ExApp's id: its requests only.")]
    follow["responses"]["200"]["content"] = {"text/event-stream": {"schema": word}}
    address = {
        "name": "address", "in": "path", "required": True, "description": "`/` in it is written %2F.", "schema": word,
    }  # fmt: skip
    engine = {"name": "name", "in": "path", "required": True, "description": "An engine's name.", "schema": word}
    count = {"type": "integer"}
    wishes = [_query("level", "debug, info, warning or error"), _query("access", "off, errors or all")]
    walked = [_query("url", "The URL to walk through."), _query("app", "An ExApp that is installed."), INSTANCE]
    logs = {"type": "object", "properties": {"level": word, "access": word}, "required": ["level", "access"]}
    upgrade = _changing("Have the version that is installed now take over", _object("process", count), [])
    upgrade["responses"]["503"] = ERROR
    return {
        "/requests/follow": {"get": follow},
        "/bans/{address}": {"delete": _changing("End a ban", _object("lifted", word), [address, INSTANCE])},
        "/engines/{name}": {
            "delete": _changing("End the tunnel of an engine", _object("ended", count), [engine, INSTANCE])
        },
        "/logs": {"put": _changing("Log other things until the next start", logs, wishes)},
        "/doctor": {
            "get": _reading("The doctor's last report, renewed when it is old", report),
            "post": _changing("Have the doctor make a report", report, walked),
        },
        "/upgrade": {"post": upgrade},
        "/openapi.json": {"get": _reading("This description", {"type": "object"})},
    }


def _reading(summary: str, schema: object) -> dict[str, Any]:
    answer = {"description": summary, "content": {JSON: {"schema": schema}}}
    return {"summary": summary, "responses": {"200": answer, "401": ERROR}}


def _changing(summary: str, schema: object, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    operation = _reading(summary, schema)
    operation["parameters"] = [OURS, *parameters]
    operation["responses"] |= dict.fromkeys(("400", "403", "404"), ERROR)
    return operation


def _query(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}


INSTANCE = _query("instance", "One of several Nextclouds, by its name in HP_INSTANCES_FILE.")


def _object(name: str, schema: object) -> dict[str, Any]:
    return {"type": "object", "properties": {name: schema}, "required": [name]}
