"""Our process by itself: how soon it is there, how big it is, and what it asks Nextcloud."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from functools import partial

from tests.live.product import Product

from benchmarks.client import ask_all, get
from benchmarks.peers import PAGE, Peers
from benchmarks.trial import OURS, Effort, Limit, Row, Trial

MB = 1e6
QUIET = 60.0  # seconds
ASSETS = 200  # of one page
BROWSER = 6  # connections of one browser


def first(peers: Peers) -> Trial:
    """What happens once in the life of an installation."""
    rows = (
        Row("first start ever, which makes the certificates", "s"),
        Row("memory after the first start ever", "MB"),
    )
    return Trial(rows, lambda: nullcontext({OURS: lambda: (peers.first_start, peers.first_memory / MB)}))


def start(peers: Peers, effort: Effort) -> Trial:
    """Later starts."""
    rows = (
        Row("`harp run` to the first answer", "s", Limit(0.5)),
        Row("memory after the first answer", "MB", Limit(45)),
    )

    return Trial(rows, lambda: nullcontext({OURS: partial(_start, peers)}), effort.starts)


def _start(peers: Peers) -> tuple[float, float]:
    product = Product(peers.directory / "start", peers.nextcloud_url, HP_CERTS_DIR=str(peers.product.certs))
    seconds = product.start(peers.command)
    memory = product.process.rss() / MB
    product.stop()
    return seconds, memory


def page(peers: Peers) -> Trial:
    """Calls to Nextcloud for a cold page."""
    rows = (
        Row(f"{ASSETS} assets of a cold page: user-info calls", "calls", Limit(1)),
        Row(f"{ASSETS} assets of a cold page: exapp-meta calls", "calls", Limit(1)),
    )

    def load() -> tuple[int, int]:
        assets = [get(f"/exapps/{PAGE}/user/1k", f"Cookie: {peers.cookie}")] * ASSETS
        asyncio.run(ask_all(peers.product.http, assets, at_once=BROWSER))
        calls = peers.asked(PAGE)
        return calls["user-info"], calls["exapp-meta"]

    return Trial(rows, lambda: nullcontext({OURS: load}))


def after_all(peers: Peers) -> Trial:
    """The last rows: our process that took part in everything but growth and the memory table."""
    rows = (Row("memory after all this", "MB", Limit(80)), Row("memory a quiet minute later", "MB", Limit(52)))

    def measure() -> tuple[float, float]:
        memory = peers.product.process.rss() / MB
        time.sleep(QUIET)
        return memory, peers.product.process.rss() / MB

    return Trial(rows, lambda: nullcontext({OURS: measure}))
