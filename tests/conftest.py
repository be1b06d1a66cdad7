"""Every test run: what it says first, how much properties are tried, and which tests may run side by side."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator
from operator import itemgetter
from pathlib import Path

import pytest
from hypothesis import settings

from harp.wire.core import RequestCutter
from tests.fakes.waiting import LOOPS, HastyLoop, LoopFactory
from tests.live.frp import BUILT, EXAPP_VERSION, NEWEST
from tests.live.kubernetes.programs import BUILT as KUBERNETES
from tests.live.peers import find

PEERS = {
    "nginx": "nginx",
    "Apache": "apache2",
    "Caddy": "caddy",
    "openssl": "openssl",
    "Kubernetes": str(KUBERNETES / "kube-apiserver"),
    **{f"frpc {version}": str(BUILT / version / "frpc") for version in (EXAPP_VERSION, NEWEST)},
}

OF_SOURCES = {"test_house.py", "test_layers.py", "test_troubleshooting.py"}  # which read all of them
SPREAD = 0.7  # of the run, in which tests that wait begin

settings.register_profile("quick", deadline=None)  # on a busy machine an example may take its time
settings.load_profile("quick")
# Whoever starts the tests may ignore these (nohup does); their children would, too, and a shell cannot undo it.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """On which loops each test runs."""
    return {"asyncio": HastyLoop if item.get_closest_marker("hasty") else LOOPS["asyncio"]}


def pytest_report_header() -> str:
    """Which parts and peers take part; tests of the others skip."""
    found = {peer: find(program) is not None for peer, program in PEERS.items()}
    present = ", ".join(peer for peer, here in found.items() if here) or "none"
    missing = ", ".join(peer for peer, here in found.items() if not here)
    core = "Python" if RequestCutter.__module__.startswith("harp.") else "the compiled part"
    return f"heads are cut by: {core}; peers: {present}" + (f"; missing: {missing}" if missing else "")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files without a test that runs alone, where only such are asked for: loading all takes seconds."""
    if config.option.markexpr != "alone" or not collection_path.match("test_*.py"):
        return None
    return True if "mark.alone" not in collection_path.read_text("utf-8") else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Free the garbage collector from what is loaded, which stays, and let it work more rarely: it takes a third."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(50_000, 50, 10)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whatever shares fixtures is one group of pytest-xdist (--dist loadgroup); long groups come first.

    Tests that wait are spread among those that work, which use the processors meanwhile.
    """
    if config.pluginmanager.hasplugin("xdist"):  # which may be off: -p no:xdist
        for item in items:
            item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=_rank)
    waiting = [item for item in items if item.get_closest_marker("waits")]
    working = [item for item in items if not item.get_closest_marker("waits")]
    places = [(number / len(working), item) for number, item in enumerate(working)]
    places += [(SPREAD * number / len(waiting), item) for number, item in enumerate(waiting)]
    items[:] = [item for _, item in sorted(places, key=itemgetter(0))]


def _group(item: pytest.Item) -> str:
    """One group of all that use the one Docker engine, or the one cluster; else each file, and each long test."""
    if _is_docker(item):
        return "docker"
    if _is_kubernetes(item):
        return "kubernetes"
    if item.get_closest_marker("core") or item.get_closest_marker("waits"):
        return item.nodeid
    return "sources" if item.path.name in OF_SOURCES else item.path.name


def _is_docker(item: pytest.Item) -> bool:
    return "/live/" in item.path.as_posix() and "engine" in getattr(item, "fixturenames", ())


def _is_kubernetes(item: pytest.Item) -> bool:
    return "/live/kubernetes/" in item.path.as_posix()


def _rank(item: pytest.Item) -> int:
    if _is_docker(item) or _is_kubernetes(item):
        return 0
    if item.get_closest_marker("core"):
        return 1
    return 2 if "/live/" in item.path.as_posix() else 3
