"""Does a request cost more when there is more to look through? Two of our processes, in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from tests.live.product import Product

from benchmarks.client import ask_all, get
from benchmarks.load import requests_per_second
from benchmarks.peers import CROWD, Peers
from benchmarks.trial import OURS, Contenders, Effort, Limit, Ratio, Row, Trial

SMALL = "small case"
SCRIPT = Path(__file__).with_name("crowd.lua")
REFUSED = 400  # for ".." in a path
LIFETIME = 10.0  # seconds of a cached session; the most that can be configured
SECONDS = 2  # of each load; both have to happen within the lifetime
SETTINGS = {
    "HP_SESSION_LIFETIME": f"{LIFETIME:g}",
    "HP_RECORD_LIFETIME": "3600",  # all records are fetched at once here: their refreshes would come at once, too
    "HP_BLACKLIST_COUNT": "1",
    "HP_BLACKLIST_WINDOW": "3600",
}


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is to look through."""

    apps: int
    sessions: int
    bans: int


FEW = Size(apps=10, sessions=100, bans=10)
MANY = Size(apps=CROWD, sessions=10_000, bans=10_000)


def trials(peers: Peers, effort: Effort) -> list[Trial]:
    """All rows about growth."""
    rows = (
        Row("grown, requests of one session", "req/s", Ratio(0.95, of=SMALL)),
        Row("grown, requests of all sessions to all ExApps", "req/s"),
        Row("grown, the same from as many addresses", "req/s"),
        Row("memory when grown", "MB", Limit(80)),
    )
    return [Trial(rows, partial(_contenders, peers, effort), effort.growth_rounds)]


@contextmanager
def _contenders(peers: Peers, effort: Effort) -> Iterator[Contenders]:
    with peers.instance("few", **SETTINGS) as few, peers.instance("many", **SETTINGS) as many:
        yield {
            SMALL: _Case(few, FEW, peers.cookie).turn,
            OURS: _Case(many, MANY, peers.cookie).turn,
        }


class _Case:
    """One of the two processes."""

    def __init__(self, product: Product, size: Size, cookie: str) -> None:
        self._product = product
        self._size = size
        self._cookie = cookie
        self._turns = count()
        asyncio.run(self._fill())

    async def _fill(self) -> None:
        """ExApps and bans, which stay."""
        port = self._product.http
        await ask_all(port, (get(f"/exapps/app{number}/1k") for number in range(self._size.apps)))
        await ask_all(port, strikes(range(self._size.bans)), status=REFUSED)

    def turn(self) -> tuple[float, float, float, float]:
        """Requests a second of one session, of all of them in their order, and of all with an address each. MB."""
        began = time.monotonic()
        cookie = f"{self._cookie}; turn={next(self._turns)}"  # sessions of the turn before would expire during this one
        port, apps, sessions = self._product.http, self._size.apps, self._size.sessions
        asyncio.run(ask_all(port, visits(cookie, range(sessions), apps)))
        load = partial(requests_per_second, port, seconds=SECONDS)
        one = load("/exapps/app0/user/1k", headers=_visitor(cookie, 0))
        everybody = load("/", script=(SCRIPT, cookie, apps, sessions, 1))
        addresses = load("/", script=(SCRIPT, cookie, apps, sessions, sessions))
        if (took := time.monotonic() - began) > LIFETIME:
            raise RuntimeError(f"{sessions} sessions and the load took {took:.1f} s; sessions live for {LIFETIME:g} s")
        return one, everybody, addresses, self._product.process.rss() / 1e6


def visits(cookie: str, numbers: range, apps: int) -> Iterator[bytes]:
    """A request of each session."""
    return (get(f"/exapps/app{number % apps}/user/1k", *_visitor(cookie, number)) for number in numbers)


def strikes(numbers: range) -> Iterator[bytes]:
    """Requests that are refused with REFUSED and counted on an address each.

    Where no proxy is trusted, the last address that a neighbour forwards is who gets banned.
    """
    return (get("/exapps/app0/../x", f"X-Forwarded-For: {_address(11, number)}") for number in numbers)


def _visitor(cookie: str, number: int) -> tuple[str, str]:
    """The headers of one browser behind a reverse proxy; crowd.lua writes the same."""
    return f"Cookie: {cookie}; n={number}", f"X-Forwarded-For: {_address(10, number)}"


def _address(network: int, number: int) -> str:
    return f"{network}.0.{number >> 8}.{number & 255}"
