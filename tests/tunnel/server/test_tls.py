"""TLS of tunnel clients, required and offered (F 1.2)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from structlog.typing import EventDict

from harp.errors import TunnelAway
from harp.settings import Settings
from tests.fakes.clock import Clock
from tests.fakes.waiting import until
from tests.tunnel.peer import FrpClient
from tests.tunnel.server.world import Start, TunnelWorld, closed, told

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime.now(UTC) + timedelta(days=1000)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def mutual(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("harp.nc").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    return presenting(authority, authority.issue_cert("client"))


@pytest.mark.parametrize("first", [b"", b"\x17"])
@pytest.mark.parametrize("mux", [True, False])
async def test_mutual_tls_with_and_without_frps_own_first_byte(
    settings: Settings, authority: trustme.CA, clock: Clock, start: Start, first: bytes, mux: bool
) -> None:
    world = await start(settings, mutual(authority))
    client = FrpClient(world.server, clock, mux=mux, tls=trusting(authority), first=first)
    await client.login()
    assert (await client.claim()).error == ""


async def test_tls_works_where_it_is_not_required(world: TunnelWorld) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client = FrpClient(world.server, world.clock, tls=context)
    await client.login()


def presenting(authority: trustme.CA, certificate: trustme.LeafCert | None) -> ssl.SSLContext:
    """A client's TLS that trusts `authority`, and shows `certificate`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def expired(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("client", not_before=LONG_AGO, not_after=LONG_AGO + timedelta(days=1))


def early(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("client", not_before=FAR_AHEAD, not_after=FAR_AHEAD + timedelta(days=1))


@pytest.mark.parametrize(
    ("certificate", "reason", "fix"),
    [
        (lambda _: None, "the client has no certificate", "set transport.tls.certFile and keyFile"),
        (lambda _: trustme.CA().issue_cert("client"), "the client's certificate is not of this server's CA", "copy"),
        (expired, "the client's certificate has expired", "copy client.crt, client.key and ca.crt"),
        (early, "the client's certificate is not valid yet", "compare the clocks"),
    ],
    ids=["none", "foreign", "expired", "not valid yet"],
)
async def test_a_certificate_that_does_not_do_is_one_warning_with_the_cure(
    settings: Settings,
    authority: trustme.CA,
    clock: Clock,
    start: Start,
    logged: list[EventDict],
    certificate: Callable[[trustme.CA], trustme.LeafCert | None],
    reason: str,
    fix: str,
) -> None:
    world = await start(settings, mutual(authority))
    for _ in range(2):
        client = FrpClient(world.server, clock, tls=presenting(authority, certificate(authority)))
        with pytest.raises((AssertionError, OSError, TunnelAway)):
            await client.login()
    (line,) = told(logged)
    assert (line["event"], line["log_level"], line["source"]) == ("tunnel connection refused", "warning", "127.0.0.1")
    assert line["reason"].startswith(reason)
    assert fix in line["fix"]


async def test_a_client_that_does_not_know_our_ca_is_a_warning_with_the_cure(
    settings: Settings, authority: trustme.CA, start: Start, logged: list[EventDict]
) -> None:
    world = await start(settings, mutual(authority))

    def connect() -> None:
        """Asyncio's own clients go away without saying why."""
        with socket.create_connection(("127.0.0.1", world.server.bound_ports[0])) as raw:
            trusting(trustme.CA()).wrap_socket(raw, server_hostname="harp.nc")

    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(connect)
    await until(lambda: told(logged))
    assert told(logged)[0]["reason"] == "the client does not know the CA of this server's certificate"
    assert "ca.crt" in told(logged)[0]["fix"]


async def test_a_websocket_inside_tls_is_a_warning_with_the_cure(
    settings: Settings, authority: trustme.CA, clock: Clock, start: Start, logged: list[EventDict]
) -> None:
    world = await start(settings, mutual(authority))
    client = FrpClient(world.server, clock, mux=False, tls=trusting(authority))
    await client.connect()
    client.control.send_raw(b"GET /~!frp HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await closed(client.control.end)
    (line,) = told(logged, "warning")
    assert (line["reason"], line["fix"]) == ("the client uses a websocket", 'set transport.protocol = "tcp"')


@pytest.mark.parametrize("first", [b"\0\1\0\1", b"o", b"w", b"FRP"])
async def test_a_plain_client_is_closed_where_tls_is_required(
    settings: Settings, authority: trustme.CA, clock: Clock, start: Start, first: bytes, logged: list[EventDict]
) -> None:
    world = await start(settings, mutual(authority))
    end = await world.raw(first)
    assert await closed(end)
    assert not end.received
    (line,) = told(logged)
    assert (line["log_level"], line["reason"]) == ("warning", "the client does not use TLS")
    assert "transport.tls.enable" in line["fix"]


async def test_a_new_certificate_serves_new_connections(
    settings: Settings, authority: trustme.CA, clock: Clock, start: Start
) -> None:
    world = await start(settings, mutual(trustme.CA()))
    with pytest.raises((OSError, AssertionError)):
        await FrpClient(world.server, clock, tls=trusting(authority)).login()
    world.server.set_tls(mutual(authority))
    await FrpClient(world.server, clock, tls=trusting(authority)).login()
