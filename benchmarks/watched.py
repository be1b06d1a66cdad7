"""What it costs to be watched: the access log of errors, and a Prometheus that asks for the metrics each second.

And what one look costs where there are many ExApps, which nobody's request may feel.
"""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median

from tests.live.product import HARP, Product

from benchmarks.client import ask_all, get
from benchmarks.load import requests_per_second
from benchmarks.peers import PLAIN, TUNNELED, Peers
from benchmarks.trial import OURS, Contenders, Effort, Limit, Ratio, Row, Trial

UNWATCHED = "ours, unwatched"
INTERVAL = 1.0  # seconds between scrapes
LEAST = 0.95
APPS = 100
LOOKS = 20
ASKED = 200  # requests without a look


def trials(peers: Peers, effort: Effort) -> list[Trial]:
    """The same requests with and without somebody who watches, in turns."""
    apps = {"direct": PLAIN} | ({"tunnel": TUNNELED} if peers.chain else {})
    return [
        *(
            _trial(peers, effort, f"{way}, PUBLIC, 1 KiB, while watched", f"/exapps/{app}/1k")
            for way, app in apps.items()
        ),
        _look(peers, effort),
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
            _scrape(product)

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


def _look(peers: Peers, effort: Effort) -> Trial:
    """The metrics of many ExApps, and a client that asks for something else all the while."""
    rows = (
        Row(f"/metrics of {APPS} ExApps", "ms", Limit(50)),
        Row("what others wait for the loop meanwhile, at most", "ms", Limit(5)),
    )

    @contextmanager
    def prepare() -> Iterator[Contenders]:
        with peers.instance("looked-at") as product:
            asyncio.run(ask_all(product.http, [get(f"/exapps/app{number}/1k") for number in range(APPS)], at_once=8))
            _scrape(product)
            yield {OURS: lambda: _looked(product)}

    return Trial(rows, prepare, effort.rounds)


def _looked(product: Product) -> tuple[float, float]:
    """Medians over LOOKS: a client's own pauses are no fault of HaRP's."""
    took, waited = [], []
    usual = min(median(_asked(product, threading.Event(), ASKED)) for _ in range(3))
    for _ in range(LOOKS):
        over, longest = threading.Event(), [0.0]

        def ask(over: threading.Event = over, longest: list[float] = longest) -> None:
            longest[0] = max(_asked(product, over, sys.maxsize))

        thread = threading.Thread(target=ask)
        thread.start()
        began = time.perf_counter()
        _scrape(product)
        took.append(time.perf_counter() - began)
        over.set()
        thread.join()
        waited.append(longest[0] - usual)
    return median(took) * 1000, median(waited) * 1000


def _asked(product: Product, over: threading.Event, most: int) -> list[float]:
    """Ask again and again, on one connection; the seconds that each answer took."""
    connection = http.client.HTTPConnection("127.0.0.1", product.http, timeout=10)
    took: list[float] = []
    while len(took) < most and not (took and over.is_set()):
        began = time.perf_counter()
        connection.request("GET", "/exapps/app0/1k")
        connection.getresponse().read()
        took.append(time.perf_counter() - began)
    connection.close()
    return took


def _scrape(product: Product) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{product.admin}/metrics", timeout=5) as answer:
        answer.read()
