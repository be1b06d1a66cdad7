"""House rules: sizes, one name for one thing, nothing unused, and what lives where."""

from __future__ import annotations

import ast
import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from vulture import Vulture

import harp
from tests.sources import parsed

ROOT = Path(__file__).parent.parent
HARP = Path(harp.__file__).parent
SOURCES = sorted(path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
PACKAGES = sorted(path.parent for path in HARP.rglob("__init__.py"))

FILE = 450  # lines
FUNCTION = 50  # lines of code: without docstring, comments and blank lines
CLASS = 25  # methods

# What vulture finds, and is used all the same.
USED = {
    "called by asyncio or aiohttp": ["_create_connection", "req", "sizehint"],
    "called by httptools": [
        *("on_body", "on_header", "on_headers_complete", "on_message_begin", "on_message_complete", "on_url"),
    ],
    "an asyncio transport has it": ["get_protocol", "get_write_buffer_limits"],
    "the standard library reads it": ["mtime", "linkname", "usage"],
    "part of frp's messages": [
        *("always_auth_pass", "bandwidth_limit", "bootstrap", "client_id", "client_spec", "dst_addr", "dst_port"),
        *("multiplexer", "remote_addr", "server_random", "src_addr", "src_port", "tcp_mux"),
    ],
    "part of yamux, spoken by the tests' peers": ["INTERNAL_ERROR", "NORMAL", "data_header"],
    "written into an answer": ["bytes_freed"],
    "for the Roles of charts": ["rules_for"],
    "shown by a template of the status page": ["plot"],
    "for authors of ExApps": [
        *("__getattr__", "content_length", "disable", "free_tcp_port", "init", "initialised"),
        *("until_heartbeat", "wait_for_tunnel"),
    ],
}


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, text: list[str]) -> int:
    """Count the lines of code of a function, signature included."""
    last = function.end_lineno or function.lineno
    lines = set(range(function.lineno, last + 1))
    if ast.get_docstring(function) is not None:
        doc = function.body[0]
        lines -= set(range(doc.lineno, (doc.end_lineno or doc.lineno) + 1))
    return sum(1 for number in lines if (code := text[number - 1].strip()) and not code.startswith("#"))


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Return all statements below a node, without what they consist of, which is twenty times as much."""
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, part, ()):
            yield child
            yield from statements(child)


@dataclass
class Outline:
    """What a file consists of."""

    lines: int
    functions: list[tuple[str, int]] = field(default_factory=list)  # and their lines of code
    classes: list[tuple[str, int, str]] = field(default_factory=list)  # their methods, their docstring


@cache
def outlines() -> dict[str, Outline]:
    """Return the outline of each file by its path."""
    found = {}
    for path in SOURCES:
        text = path.read_text("utf-8")
        lines = text.splitlines()
        outline = found[path.relative_to(ROOT).as_posix()] = Outline(len(lines))
        for node in statements(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                outline.functions.append((node.name, code_lines(node, lines)))
            elif isinstance(node, ast.ClassDef):
                methods = sum(isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) for member in node.body)
                outline.classes.append((node.name, methods, ast.get_docstring(node) or ""))
    return found


def classes() -> list[tuple[str, str, int, str]]:
    """Return the path, name, number of methods and docstring of each class of the program."""
    return [(path, *one) for path, outline in outlines().items() if path.startswith("src/") for one in outline.classes]


def test_tests_of_one_group_run_in_one_process(request: pytest.FixtureRequest) -> None:
    """By the mark that pytest-xdist puts on what it distributes by groups, which it has once ceased to do unnoticed."""
    assert request.node.nodeid.endswith("@sources") is request.config.getoption("loadgroup", default=False)


def test_no_file_is_too_long() -> None:
    assert [path for path, outline in outlines().items() if outline.lines > FILE] == []


def test_no_function_is_too_long() -> None:
    assert [
        f"{path}: {name} has {count} lines"
        for path, outline in outlines().items()
        for name, count in outline.functions
        if count > FUNCTION
    ] == []


def test_a_class_with_many_methods_says_why() -> None:
    assert [
        f"{path}: {name} has {methods} methods"
        for path, name, methods, text in classes()
        if methods > CLASS and "methods" not in text
    ] == []


def names_of_several(folder: str) -> dict[str, list[str]]:
    """Return where classes stand that share their name with another one below a folder."""
    places = defaultdict(list)
    for path, outline in outlines().items():
        for name, _, _ in outline.classes:
            if path.startswith(folder):
                places[name].append(path)
    return {name: paths for name, paths in places.items() if len(paths) > 1}


def test_no_two_classes_have_one_name() -> None:
    assert names_of_several("src/") == {}


def test_no_two_classes_of_the_tests_have_one_name() -> None:
    assert names_of_several("tests/") == {}


def test_tests_wait_for_what_happens_and_not_for_turns_of_the_loop() -> None:
    """Which tests/fakes/waiting.py does for all."""
    texts = {path: (ROOT / path).read_text("utf-8") for path in outlines() if path.startswith("tests/")}
    assert [path for path, text in texts.items() if "asyncio.sleep(0" + ")" in text] == ["tests/fakes/waiting.py"]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(HARP.parent).as_posix())
def test_a_package_says_what_lives_there(package: Path) -> None:
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text("utf-8")))
    assert text is not None
    assert len(text.splitlines()) >= 3 or package == HARP
    named = set(re.findall(r"`([a-z_]+)`", text))
    there = {path.stem for path in package.iterdir()}
    assert not {name for name in named if name.islower() and name not in there and "_" in name}


def public_functions() -> list[tuple[str, str, str]]:
    """Return the place, name and docstring of each function and method of the program whose name others may use."""
    found = []
    for path in sorted(HARP.rglob("*.py")):
        tree = parsed(path)
        homes: list[ast.Module | ast.ClassDef] = [tree]
        homes += (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name[0] != "_")
        for node in (node for home in homes for node in home.body):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                place = f"{path.relative_to(HARP)}:{node.lineno}"
                found.append((place, node.name, ast.get_docstring(node) or ""))
    return found


def test_every_public_function_says_what_it_does() -> None:
    """Itself, or where its name is defined: asyncio's, and those of protocols that several classes have."""
    bases = (asyncio.BufferedProtocol, asyncio.Protocol, asyncio.Transport, logging.Handler)
    described = {name for _, name, text in public_functions() if text}.union(*map(dir, bases))
    assert [place for place, name, text in public_functions() if not text and name not in described] == []


# Of docstrings that say what a function returns without saying that it does, as translated ones do.
FRAGMENTS = re.compile(r"(The|An?|Every|All|Those|Its|One|What|Who|How|Where|Why|Whether|Is|Are|Does|Has|May|Was)\b")
MADE_FASTER = ("frontend/", "proxy/", "wire/")  # their docstrings change when their code does


def test_docstrings_of_functions_that_return_something_begin_with_a_verb() -> None:
    found = []
    for path in sorted(HARP.rglob("*.py")):
        place = path.relative_to(HARP).as_posix()
        for node in statements(parsed(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.returns is None:
                continue
            plain = not any(re.search(r"property|manager|fixture", ast.unparse(one)) for one in node.decorator_list)
            text = ast.get_docstring(node) or ""
            if plain and ast.unparse(node.returns) not in ("None", "NoReturn") and FRAGMENTS.match(text):
                found.append(f"{place}:{node.lineno}: {text.splitlines()[0]}")
    slow = [one for one in found if not one.startswith(MADE_FASTER)]
    assert len(slow) <= 10, slow  # one may slip in; more are a habit


@cache
def unused() -> dict[str, list[str]]:
    """Return where vulture finds something unused, by name."""
    search = Vulture()
    search.scavenge([str(HARP)])
    found = defaultdict(list)
    for item in search.get_unused_code(min_confidence=60):
        found[item.name].append(f"{item.filename}:{item.first_lineno}")
    return found


def test_nothing_is_unused() -> None:
    excused = {name for names in USED.values() for name in names}
    assert {name: places for name, places in unused().items() if name not in excused} == {}


def test_nothing_that_is_used_is_excused() -> None:
    assert {name for names in USED.values() for name in names} - unused().keys() == set()
