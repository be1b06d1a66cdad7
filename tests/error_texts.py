"""The error texts of the program that an administrator can see, collected from its sources.

They are events of its log from warnings on, reasons of refusals (any call with a status from 400 on and a text, and
BadRequest), and titles of what the doctor finds. What varies in a text is "…": `f"{count} header lines, limit {limit}"`
is "… header lines, limit …".
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import harp
from tests.sources import parsed

SOURCES = Path(harp.__file__).parent
# Stand-ins; commands print to whoever has typed them; the admin API and the status page answer whoever has asked.
ELSEWHERE = (
    "testing/",
    "__main__.py",
    "commands/",
    "status/admin.py",
    "status/answering.py",
    "status/api.py",
    "status/web/",
)
LOGGED = {"warning", "error", "exception", "critical"}
FINDINGS = {"failed", "warning"}

Names = Mapping[str, Sequence[ast.expr]]


@cache
def error_texts() -> dict[str, str]:
    """Return every text, with the module where it is."""
    found: dict[str, str] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        module = path.relative_to(SOURCES).as_posix()
        if module.startswith(ELSEWHERE):
            continue
        for text in texts_of(parsed(path), module):
            found.setdefault(text, module)
    return found


def texts_of(tree: ast.Module, module: str) -> Iterator[str]:
    """Return the texts of one module."""
    constants = _assigned(node for node in tree.body if isinstance(node, ast.Assign))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes = list(ast.walk(function))
            names = {**constants, **_assigned(node for node in nodes if isinstance(node, ast.Assign))}
            for call in nodes:
                if isinstance(call, ast.Call):
                    yield from _of_call(call, names, doctor=module.startswith("status/doctor/"))


def _assigned(nodes: Iterator[ast.Assign]) -> Names:
    """Return what is assigned to each name; one function may use a name several times."""
    found: dict[str, list[ast.expr]] = defaultdict(list)
    for node in nodes:
        target = node.targets[0]
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=True))
        for name, value in pairs:
            if isinstance(name, ast.Name):
                found[name.id].append(value)
    return found


def _of_call(call: ast.Call, names: Names, *, doctor: bool) -> Iterator[str]:
    function, arguments = call.func, call.args
    if isinstance(function, ast.Attribute) and function.attr in LOGGED and arguments:
        yield from _text(arguments[0], {})
    elif isinstance(function, ast.Name) and function.id == "BadRequest" and arguments:
        yield from _text(arguments[0], names)
    elif len(arguments) > 1 and (_is_status(arguments[0]) or (doctor and _is_finding(function))):
        yield from _text(arguments[1], names)


def _is_status(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and 400 <= node.value < 600


def _is_finding(function: ast.expr) -> bool:
    return isinstance(function, ast.Name) and function.id in FINDINGS


def _text(node: ast.expr, names: Names) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from _text(node.body, names)
        yield from _text(node.orelse, names)
    elif isinstance(node, ast.Name):
        for value in names.get(node.id, ()):
            yield from _text(value, {})
