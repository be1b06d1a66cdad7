"""What it costs to be watched: the access log of errors, and a Prometheus that asks for the metrics each second."""

from __future__ import annotations

import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from tests.live.product import HARP, Product

from benchmarks.load import requests_per_second
from benchmarks.peers import PLAIN, TUNNELED, Peers
from benchmarks.trial import OURS, Contenders, Effort, Ratio, Row, Trial

UNWATCHED = "ours, unwatched"
INTERVAL = 1.0  # seconds between scrapes
LEAST = 0.95


def trials(peers: Peers, effort: Effort) -> list[Trial]:
    """The same requests with and without somebody who watches, in turns."""
    apps = {"direct": PLAIN} | ({"tunnel": TUNNELED} if peers.chain else {})
    return [
        _trial(peers, effort, f"{way}, PUBLIC, 1 KiB, while watched", f"/exapps/{app}/1k") for way, app in apps.items()
    ]


def _trial(peers: Peers, effort: Effort, name: str, path: str) -> Trial:
    load = partial(requests_per_second, peers.product.http, path, seconds=effort.seconds)

    @contextmanager
    def prepare() -> Iterator[Contenders]:
        load()
        yield {OURS: lambda: (_watched(peers.product, load),), UNWATCHED: lambda: (load(),)}

    return Trial((Row(name, "req/s", Ratio(LEAST, of=UNWATCHED)),), prepare, effort.rounds)


def _watched(product: Product, load: Callable[[], float]) -> float:
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(INTERVAL):
            with urllib.request.urlopen(f"http://127.0.0.1:{product.admin}/metrics", timeout=5) as answer:
                answer.read()

    thread = threading.Thread(target=scrape)
    _log(product, "errors")
    thread.start()
    try:
        return load()
    finally:
        over.set()
        thread.join()
        _log(product, "off")


def _log(product: Product, which: str) -> None:
    """Switch the access log, while it runs."""
    subprocess.run([*HARP, "log-level", "--access", which], env=product.environment, check=True, capture_output=True)
