"""The admin listener, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from harp.frontend.connection import ClientConnection
from harp.settings import load
from harp.status.admin import CONNECTIONS, AdminGate
from harp.status.conditions import Condition
from harp.status.engines import EngineLine
from harp.status.pages import Page, Pages
from tests.fakes.clock import Clock
from tests.fakes.transport import MemoryTransport
from tests.fakes.waiting import settled

SETTINGS = load({"HP_SHARED_KEY": "key", "NC_INSTANCE_URL": "http://cloud"})
OK = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: no-store\r\ncontent-length: 15\r\n\r\n"
    b'{"status":"ok"}'
)


class FactsOfAdmin:
    """A process that is not ready, and does not know its engines."""

    def listeners(self) -> dict[str, Condition]:
        return {}

    def nextcloud(self) -> Condition | None:
        return None

    def draining(self) -> bool:
        return False

    def engines(self) -> list[EngineLine]:
        raise RuntimeError("a bug")


@pytest.fixture
async def gate() -> AdminGate:
    return AdminGate(SETTINGS, Pages(FactsOfAdmin()), Clock().deadlines)


def connected(gate: AdminGate) -> tuple[ClientConnection, MemoryTransport]:
    connection, wire = ClientConnection(gate, secure=False), MemoryTransport()
    connection.connection_made(wire)
    return connection, wire


def answer(gate: AdminGate, method: str, target: str) -> bytes:
    connection, wire = connected(gate)
    connection.data_received(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return wire.take()


@pytest.mark.parametrize("target", ["/heartbeat", "/heartbeat?from=docker"])
async def test_a_page_is_json_that_nobody_keeps(gate: AdminGate, target: str) -> None:
    assert answer(gate, "GET", target) == OK


async def test_head_is_the_page_without_its_body(gate: AdminGate) -> None:
    assert answer(gate, "HEAD", "/heartbeat") == OK.removesuffix(b'{"status":"ok"}')


async def test_not_ready_is_503(gate: AdminGate) -> None:
    assert answer(gate, "GET", "/readyz").startswith(b"HTTP/1.1 503 Service Unavailable\r\n")


async def test_a_kept_connection_serves_page_after_page(gate: AdminGate) -> None:
    connection, wire = connected(gate)
    for _ in range(3):
        connection.data_received(b"GET /heartbeat HTTP/1.1\r\nHost: a\r\n\r\n")
        assert wire.take() == OK
    assert not wire.closed


async def test_any_other_path_is_told_which_there_are(gate: AdminGate) -> None:
    told = answer(gate, "GET", "/")
    assert told.startswith(b"HTTP/1.1 404 ")
    assert b"/heartbeat, /healthz, /readyz, /engines" in told


async def test_only_get_and_head_are_served(gate: AdminGate) -> None:
    told = answer(gate, "POST", "/heartbeat")
    assert told.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"allow: GET, HEAD\r\n" in told


async def test_a_page_that_fails_is_500_and_the_listener_goes_on(gate: AdminGate) -> None:
    assert answer(gate, "GET", "/engines").startswith(b"HTTP/1.1 500 ")
    assert answer(gate, "GET", "/heartbeat") == OK


async def test_connections_are_limited(gate: AdminGate) -> None:
    crowd = [connected(gate) for _ in range(CONNECTIONS)]
    one_more, wire = connected(gate)
    assert wire.take().startswith(b"HTTP/1.1 503 ")
    one_more.connection_lost(None)
    crowd[0][0].connection_lost(None)
    assert answer(gate, "GET", "/heartbeat") == OK


async def test_closing_ends_every_connection(gate: AdminGate) -> None:
    _, wire = connected(gate)
    await gate.close()
    assert wire.aborted


def measured(metrics: Callable[[], Awaitable[Page]]) -> tuple[AdminGate, ClientConnection, MemoryTransport]:
    """An admin listener with these metrics, and a client that has asked for them."""
    gate = AdminGate(SETTINGS, Pages(FactsOfAdmin()), Clock().deadlines, metrics=metrics)
    connection, wire = connected(gate)
    connection.data_received(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
    return gate, connection, wire


async def test_metrics_are_sent_when_they_are_made_and_as_what_they_are() -> None:
    made = asyncio.Event()

    async def metrics() -> Page:
        await made.wait()
        return Page(200, b"# EOF\n", kind="application/openmetrics-text")

    _, _, wire = measured(metrics)
    await settled()
    assert wire.take() == b""
    made.set()
    await settled()
    told = wire.take()
    assert b"\r\ncontent-type: application/openmetrics-text\r\n" in told
    assert told.endswith(b"\r\n\r\n# EOF\n")


async def test_metrics_that_fail_are_500() -> None:
    async def metrics() -> Page:
        raise RuntimeError("a bug")

    _, _, wire = measured(metrics)
    await settled()
    assert wire.take().startswith(b"HTTP/1.1 500 ")


async def test_who_leaves_before_the_metrics_are_made_is_sent_nothing() -> None:
    made = asyncio.Event()

    async def metrics() -> Page:
        await made.wait()
        return Page(200, b"")

    gate, connection, wire = measured(metrics)
    connection.connection_lost(None)
    made.set()
    await settled()
    assert wire.take() == b""
    await gate.close()


async def test_cookies_and_passwords_of_admins_are_not_remembered(gate: AdminGate) -> None:
    request = b"GET /status HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret\r\n\r\n"
    assert gate.reader.read(request).fields is not gate.reader.read(request).fields
