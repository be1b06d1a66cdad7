"""House rules: sizes, one name for one thing, nothing unused, and what lives where."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from vulture import Vulture

import harp

ROOT = Path(__file__).parent.parent
HARP = Path(harp.__file__).parent
SOURCES = sorted(path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
PACKAGES = sorted(path.parent for path in HARP.rglob("__init__.py"))

FILE = 450  # lines
FUNCTION = 50  # lines of code: without docstring, comments and blank lines
CLASS = 25  # methods

# Files over the limit, each to be split when it is worked on next.
LARGE = {"src/harp/frontend/connection.py"}

# What vulture finds, and is used all the same.
USED = {
    "called by asyncio or aiohttp": ["_create_connection", "buffer_updated", "get_buffer", "req", "sizehint", "traces"],
    "an asyncio transport has it": ["get_protocol", "get_write_buffer_limits"],
    "the standard library reads it": ["mtime", "linkname", "usage"],
    "part of frp's messages": [
        *("always_auth_pass", "bandwidth_limit", "bootstrap", "client_id", "client_spec", "dst_addr", "dst_port"),
        *("multiplexer", "remote_addr", "server_random", "src_addr", "src_port", "tcp_mux"),
    ],
    "part of yamux, spoken by the tests' peers": ["INTERNAL_ERROR", "NORMAL", "data_header"],
    "written into an answer": ["bytes_freed", "deleted", "detail"],
    "for authors of ExApps": [
        *("__getattr__", "content_length", "disable", "free_tcp_port", "init", "initialised", "log_out"),
        *("until_heartbeat", "wait_for_tunnel"),
    ],
    "for the Roles of charts, and for the Kubernetes backend": ["cluster", "rules_for", "FEATURES"],
    "checked and warned of, until Kubernetes is here": [
        *("ca_file", "namespace", "storage_class", "storage_size", "token_file", "verify"),
    ],
}


def definitions(kind: type[ast.AST], folder: Path = ROOT) -> Iterator[tuple[str, ast.AST]]:
    for path in SOURCES:
        if path.is_relative_to(folder):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, kind):
                    yield path.relative_to(ROOT).as_posix(), node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, text: list[str]) -> int:
    """Count the lines of code of a function, signature included."""
    last = function.end_lineno or function.lineno
    lines = set(range(function.lineno, last + 1))
    if ast.get_docstring(function) is not None:
        doc = function.body[0]
        lines -= set(range(doc.lineno, (doc.end_lineno or doc.lineno) + 1))
    return sum(1 for number in lines if (code := text[number - 1].strip()) and not code.startswith("#"))


def test_no_file_is_too_long() -> None:
    long = {path.relative_to(ROOT).as_posix() for path in SOURCES if len(path.read_text("utf-8").splitlines()) > FILE}
    assert long == LARGE


def test_no_function_is_too_long() -> None:
    long = []
    for path in SOURCES:
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = code_lines(node, source.splitlines())
                if count > FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {count} lines")
    assert long == []


def test_a_class_with_many_methods_says_why() -> None:
    silent = []
    for path, node in definitions(ast.ClassDef, ROOT / "src"):
        assert isinstance(node, ast.ClassDef)
        methods = [member for member in node.body if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)]
        if len(methods) > CLASS and "methods" not in (ast.get_docstring(node) or ""):
            silent.append(f"{path}: {node.name} has {len(methods)} methods")
    assert silent == []


def test_no_two_classes_have_one_name() -> None:
    places = defaultdict(list)
    for path, node in definitions(ast.ClassDef, ROOT / "src"):
        assert isinstance(node, ast.ClassDef)
        places[node.name].append(path)
    double = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert double == {}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(HARP.parent).as_posix())
def test_a_package_says_what_lives_there(package: Path) -> None:
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text("utf-8")))
    assert text is not None
    assert len(text.splitlines()) >= 3 or package == HARP
    named = set(re.findall(r"`([a-z_]+)`", text))
    there = {path.stem for path in package.iterdir()}
    assert not {name for name in named if name.islower() and name not in there and "_" in name}


def test_nothing_is_unused() -> None:
    ignored = [name for names in USED.values() for name in names]
    search = Vulture(ignore_names=ignored)
    search.scavenge([str(HARP)])
    unused = [f"{item.filename}:{item.first_lineno}: {item.name}" for item in search.get_unused_code(min_confidence=60)]
    assert unused == []


def test_nothing_that_is_used_is_excused() -> None:
    search = Vulture()
    search.scavenge([str(HARP)])
    found = {item.name for item in search.get_unused_code(min_confidence=60)}
    assert {name for names in USED.values() for name in names} - found == set()
