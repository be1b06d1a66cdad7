"""Our process by itself: how soon it is there, how big it is, and what it asks Nextcloud."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tests.live.product import Product

from benchmarks.client import ask_all, get
from benchmarks.peers import PAGE, Peers
from benchmarks.trial import OURS, Contenders, Effort, Limit, Row, Trial, single

MB = 1e6
ASSETS = 200  # of one page
BROWSER = 6  # connections of one browser


def first(peers: Peers) -> Trial:
    """What happens once in the life of an installation."""
    row = Row("first start ever, which makes the certificates", "s")
    return single(row, 1, {OURS: lambda: peers.first_start})


def start(peers: Peers, effort: Effort) -> Trial:
    """Later starts."""
    rows = (
        Row("`harp run` to the first answer", "s", Limit(0.5)),
        Row("memory then", "MB", Limit(45)),
    )

    @contextmanager
    def prepare() -> Iterator[Contenders]:
        yield {OURS: partial(_start, peers)}

    return Trial(rows, prepare, effort.starts)


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

    @contextmanager
    def prepare() -> Iterator[Contenders]:
        yield {OURS: load}

    return Trial(rows, prepare)


def after_all(peers: Peers) -> Trial:
    """The last row: our process that took part in every row, or one of its own if that was bigger."""
    row = Row("memory after all this", "MB", Limit(80))
    return single(row, 1, {OURS: lambda: max(peers.product.process.rss(), peers.most_memory) / MB})
