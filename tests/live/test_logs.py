"""The log of a real HaRP whose reader stalls, leaves, or whose disk is full: serving goes on."""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.product import Product

NOWHERE = "http://127.0.0.1:9"  # a Nextcloud that is not there
REQUESTS = 4000  # some hundred bytes of log each: much more than a pipe and our own queue take


@contextmanager
def logging_to(output: int, directory: Path, **environment: str) -> Iterator[Product]:
    """A HaRP at debug level whose standard output and error are `output`. It has ended with 0 after the block."""
    product = Product(directory, NOWHERE, HP_LOG_LEVEL="debug", **environment)
    product.start(output=output)
    try:
        yield product
    finally:
        status = product.stop(timeout=5)
    assert status == 0


def ask(product: Product, times: int) -> None:
    """Requests over one connection, each refused and logged."""
    connection = http.client.HTTPConnection("127.0.0.1", product.http, timeout=5)
    for number in range(times):
        connection.request("GET", f"/exapps/nobody{number % 10}/{'x' * 300}/{number}")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 503
    connection.close()


def test_a_reader_that_stalls_stops_nothing_and_is_told_how_much_it_missed(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with logging_to(writer, tmp_path) as product:
        ask(product, REQUESTS)
        assert product.admin_status("/healthz") == 200
        os.close(writer)
        os.set_blocking(reader, False)
        log = b""
        end = time.monotonic() + 10
        while b"log lines dropped" not in log and time.monotonic() < end:
            try:
                log += os.read(reader, 1 << 20)
            except BlockingIOError:
                ask(product, 1)
        os.set_blocking(reader, True)
    log += b"".join(iter(lambda: os.read(reader, 1 << 20), b""))
    os.close(reader)
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"event", "level", "time"} <= set.intersection(*(set(line) for line in lines))
    lost = sum(line["lines"] for line in lines if line["event"] == "log lines dropped")
    served = [line for line in lines if line["event"] == "request"]
    assert REQUESTS <= lost + len(served) <= REQUESTS + 2000


def test_a_stop_does_not_wait_for_a_reader_that_stalls(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with logging_to(writer, tmp_path) as product:
        ask(product, REQUESTS)
        began = time.monotonic()
        product.stop()
        assert time.monotonic() - began < 4
    os.close(reader)
    os.close(writer)


def test_a_reader_that_leaves_stops_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with logging_to(writer, tmp_path) as product:
        os.close(reader)
        os.close(writer)
        ask(product, 100)


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with logging_to(full, tmp_path) as product:
        os.close(full)
        ask(product, 100)


@pytest.mark.parametrize(
    ("style", "zone", "offset"),
    [("text", "EAST-9:30", "+09:30"), ("json", "WEST+3:30", "-03:30"), ("json", "", "+00:00")],
)
def test_the_time_is_that_of_tz_with_its_offset(tmp_path: Path, style: str, zone: str, offset: str) -> None:
    log = (tmp_path / "log").open("wb")
    with logging_to(log.fileno(), tmp_path, TZ=zone, HP_LOG_FORMAT=style) as product:
        ask(product, 1)
    log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) > 2
    for line in lines:
        assert re.search(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}" + re.escape(offset), line), line
