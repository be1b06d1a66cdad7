"""Imports go downwards only, and the lowest layers stay pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import harp
from tests.sources import parsed

ROOT = Path(harp.__file__).parent

# From the top; each layer may import itself and what stands below. What is not named stands above all.
LAYERS = ["status", "frontend", "control", "cluster", "nextcloud", "engines", "tunnel", "proxy", "state", "net"]
LAYERS += ["policy", "wire"]
GROUND = {"settings", "logs", "output", "errors", "lazy", "recent"}
ABOVE = {"commands", "snippets", "testing"}
PURE = ["wire", "policy"]
IMPURE_MODULES = {
    "aiohttp",
    "asyncio",
    "logging",
    "multiprocessing",
    "os",
    "random",
    "secrets",
    "select",
    "socket",
    "ssl",
    "structlog",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "uuid",
    "uvloop",
}
IMPURE_CALLS = {"open", "print", "input"}
IMPURE_METHODS = {"now", "today", "utcnow", "urandom", "read_text", "read_bytes", "write_text", "write_bytes"}


def modules(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """The full names of everything a module imports, wherever in the module it does."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of_harp(name: str) -> str | None:
    """The layer or module right below `harp` that an imported name belongs to."""
    top, _, rest = name.partition(".")
    return rest.partition(".")[0] if top == "harp" and rest else None


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_itself_and_the_layers_below(layer: str) -> None:
    allowed = {*LAYERS[LAYERS.index(layer) :], *GROUND, "__version__"}
    for path in modules(layer):
        parts = {part_of_harp(name) for name in imports(path)} - {None}
        assert parts <= allowed, f"{path.relative_to(ROOT)} imports {parts - allowed}"


@pytest.mark.parametrize("module", sorted(GROUND))
def test_the_ground_imports_nothing_but_itself(module: str) -> None:
    for path in modules(module) or [ROOT / f"{module}.py"]:
        parts = {part_of_harp(name) for name in imports(path)} - {None}
        assert parts <= GROUND, path


@pytest.mark.parametrize("path", [path for layer in PURE for path in modules(layer)], ids=lambda path: path.stem)
def test_a_pure_module_has_no_clock_socket_random_environment_log_or_await(path: Path) -> None:
    used = {name.partition(".")[0] for name in imports(path)}
    assert not used & IMPURE_MODULES
    for node in ast.walk(parsed(path)):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith), path
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name):
                assert called.id not in IMPURE_CALLS, path
            elif isinstance(called, ast.Attribute):
                assert called.attr not in IMPURE_METHODS, path


def test_every_package_has_its_place() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= {*LAYERS, *GROUND, *ABOVE}
