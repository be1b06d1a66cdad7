"""Visitors that hardly read, through a tunnel: what they cost, and what they leave behind."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.live.product import Product, running
from tests.live.tunnels import SHIPPED, start_tunnel
from tests.live.world import TUNNEL_PORT, World

MB = 10**6
READERS = 500
MOST = 200 * MB
REQUEST = b"GET /exapps/hello/static/1000000000 HTTP/1.1\r\nHost: harp\r\n\r\n"
BUFFER = 16384  # bytes of the visitors' sockets; the kernel's own buffers take megabytes
STEADY = 6.0  # seconds without growth: all buffers are full
LONGEST = 90.0  # seconds until then
GIVEN_BACK = 30.0  # seconds


@pytest.fixture
def tunneled(world: World, tmp_path: Path) -> Iterator[Product]:
    """Started with its certificates in place: what makes them stays in memory."""
    with running(tmp_path, world.nextcloud):
        pass
    with (
        running(tmp_path, world.nextcloud) as product,
        start_tunnel(product, SHIPPED, "hello", TUNNEL_PORT, world.socket) as tunnel,
    ):
        tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        yield product


def test_500_slow_readers_are_bounded_and_leave_nothing_behind(tunneled: Product) -> None:
    process = tunneled.process
    before = process.rss()
    with ExitStack() as stack:
        readers = [stack.enter_context(reader(tunneled.http)) for _ in range(READERS)]
        began = steady = time.monotonic()
        most = before
        while time.monotonic() < min(steady + STEADY, began + LONGEST) or most < before + 40 * MB:
            assert time.monotonic() < began + LONGEST
            sip(readers)
            if process.rss() > most + MB:
                most, steady = process.rss(), time.monotonic()
        assert most <= MOST
    process.until(lambda: process.rss() < before + 15 * MB, "memory given back", GIVEN_BACK)


def reader(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    made.connect(("127.0.0.1", port))
    made.sendall(REQUEST)
    made.setblocking(False)
    return made


def sip(readers: list[socket.socket]) -> None:
    """Some kilobytes of each, a few times a second."""
    for one in readers:
        with suppress(BlockingIOError):
            assert one.recv(4096)
    time.sleep(0.3)
