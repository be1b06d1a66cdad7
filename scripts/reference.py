"""Write the pages of docs/ that are made from the code: commands, metrics and the admin API.

`reference.py` writes them, `reference.py --check` exits with 1 when one of them is not what the code says.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from harp.__main__ import whole_parser
from harp.commands.manual import sentence
from harp.commands.outline import CommandOption, CommandOutline, outline_of
from harp.frontend.traffic import BOUNDS, CLASSES
from harp.status import metrics as scrape
from harp.status import snapshot
from harp.status.openapi import document

DOCS = Path(__file__).parent.parent / "docs"
COMMANDS = """\
# Commands

<!-- Made from the code by scripts/reference.py. -->

Settings come from the environment ([configuration](configuration.md)). `harp manual | man -l -` shows this page in a
terminal; `harp completion bash` prints what a shell needs to complete commands and options.
[Operating HaRP](operating.md) says when to use which.

"""
METRICS = """\
# Metrics

<!-- Made from the code by scripts/reference.py. -->

`GET /metrics` on the admin listener returns OpenMetrics. [Operating](operating.md#metrics) says how to scrape
it, and names the dashboard and the alerts that use it. `app` is empty for requests to no known ExApp, and `app_api` for
calls of AppAPI to HaRP itself. With [several Nextclouds](instances.md), what is counted for each of them has the label
`instance` as well, and there are `harp_instance_connections`, `harp_instance_requests_running` and
`harp_instance_requests_waiting`.

| metric | type | labels | |
|---|---|---|---|
"""
API = """\
# Admin API

<!-- Made from the code by scripts/reference.py. -->

[Operating](operating.md#the-admin-api) says who may call it, and what stays as it is within version 1. Paths begin with
`/api/v1`. `GET /api/v1/openapi.json` returns the same description for programs, in OpenAPI 3.1.

## Requests

| request | parameters | answer | |
|---|---|---|---|
"""


def commands() -> str:
    """Return the page of commands, in the order of `harp --help`."""
    lines = COMMANDS.splitlines()
    for command in outline_of(whole_parser()).walk():
        if command.path:
            lines += _command(command)
    return "\n".join(lines).rstrip() + "\n"


def _command(command: CommandOutline) -> list[str]:
    places = [option.value for option in command.options if not option.names]
    lines = [
        f"{'#' * (len(command.path) + 1)} `{' '.join(('harp', *command.path, *places))}`",
        "",
        sentence(command.text),
        "",
    ]
    options = [option for option in command.options if "--help" not in option.names]
    if options:
        lines += ["| option | |", "|---|---|"]
        lines += [f"| {_names(option)} | {_cell(sentence(option.text))} |" for option in options]
        lines.append("")
    return lines


def _names(option: CommandOption) -> str:
    return _cell(", ".join(f"`{f'{name} {option.value}'.strip()}`" for name in option.names) or f"`{option.value}`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def metrics() -> str:
    """Return the page of metrics, in the order of a scrape."""
    lines = METRICS.splitlines()
    for family in scrape.collected(_nothing()):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))
        lines.append(f"| `{family.name}{suffix}` | {family.type} | {labels} | {_cell(family.documentation)} |")
    return "\n".join(lines) + "\n"


def _nothing() -> snapshot.Snapshot:
    """Return what a HaRP knows that has just been started, for the names of what it would report."""
    traffic = snapshot.TrafficLine(dict.fromkeys(CLASSES, 0), 0, 0, 0.0, (0,) * (len(BOUNDS) + 1))
    return snapshot.Snapshot(
        process=snapshot.Process("", 0.0, 0.0, 0, 0, 0, 0, 0, 0.0, "", ""),
        listeners={},
        nextcloud=snapshot.NextcloudLine("", None, 0, 0),
        apps=(),
        control=traffic,
        others=traffic,
        refusals={},
        tunnels=(),
        tunnels_lost=0,
        engines=(),
        bans=(),
        ban_totals=snapshot.BanTotals(0, 0, 0),
        members=tuple(
            snapshot.MemberLine("", False, False, 0, 0.0, 0.0, 0, 0, 0, 0, 0.0, kind=kind)
            for kind in (snapshot.WORKER, snapshot.REPLICA)
        ),
        certificates=(),
    )


def admin_api() -> str:
    """Return the page of the admin API: requests, then the objects in their answers."""
    description = document()
    lines = API.splitlines()
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            lines.append(_operation(f"`{method.upper()} {path}`", operation))
    lines += ["", "Errors (400, 401, 403, 404) are an object with the text under `error`.", "", "## Objects", ""]
    for name, schema in sorted(description["components"]["schemas"].items()):
        lines += _schema(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def _operation(request: str, operation: Mapping[str, Any]) -> str:
    parameters = ", ".join(f"`{one['name']}`" for one in operation.get("parameters", ()))
    content = next(iter(operation["responses"]["200"]["content"].values()))
    return f"| {request} | {parameters} | {_type(content['schema'])} | {_cell(sentence(operation['summary']))} |"


def _schema(name: str, schema: Mapping[str, Any]) -> list[str]:
    lines = [f"### {name}", ""]
    if text := schema.get("description"):
        lines += [sentence(text.split("\n\n")[0].replace("\n", " ")), ""]
    comments = _comments(name)
    lines += ["| field | type | |", "|---|---|---|"]
    for field, kind in schema["properties"].items():
        lines.append(f"| `{field}` | {_type(kind)} | {_cell(comments.get(field, ''))} |")
    return [*lines, ""]


def _comments(name: str) -> Mapping[str, str]:
    """Return the comments beside the fields of a class that is answered, by field."""
    kind = next(kind for kind in _answered(Struct) if kind.__name__ == name)
    return dict(re.findall(r"^    (\w+): [^#\n]+?  # (.+)$", inspect.getsource(kind), re.MULTILINE))


def _answered(kind: type[Struct]) -> Iterator[type[Struct]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _answered(below)


def _type(schema: Mapping[str, Any]) -> str:
    """Return a type of JSON Schema in words, with links to the objects of the page."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if choices := schema.get("anyOf"):
        return " or ".join(map(_type, choices))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array" and "prefixItems" in schema:
        return f"[{', '.join(map(_type, schema['prefixItems']))}]"
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and "properties" in schema:
        return ", ".join(f"`{name}`: {_type(one)}" for name, one in schema["properties"].items())
    if kind == "object" and isinstance(inner := schema.get("additionalProperties"), Mapping):
        return f"object, each value {_type(inner)}"
    return str(kind)


PAGES = {"commands.md": commands, "metrics.md": metrics, "admin-api.md": admin_api}


def outdated() -> Iterator[str]:
    """Return the names of the pages that are not what the code says."""
    for name, page in PAGES.items():
        path = DOCS / name
        if not path.exists() or path.read_text("utf-8") != page():
            yield name


def main() -> int:
    """Return the exit code."""
    if "--check" in sys.argv:
        names = list(outdated())
        for name in names:
            print(f"docs/{name} is not what the code says: run .venv/bin/python scripts/reference.py")
        return int(bool(names))
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
