"""What bulk leaves behind: little while its connections stay, nothing that counts when they are gone."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.live.product import Product, running
from tests.live.world import World

KIB, MB = 1 << 10, 1 << 20
UPLOADS = 100
SIZE = 2 * MB
HELD = 256 * KIB  # for a connection that has brought megabytes
LEFT = 15 * MB  # when all are gone
UPLOAD = b"POST /exapps/direct/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % SIZE


@pytest.fixture
def product(world: World, tmp_path: Path) -> Iterator[Product]:
    certs = tmp_path / "harp" / "certs"
    certs.mkdir(parents=True)
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certs / "cert.pem")
    with running(tmp_path / "harp", world.nextcloud) as product:
        product.process.until_listening(product.https)
        yield product


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def upload(port: int, tls: ssl.SSLContext | None) -> asyncio.StreamWriter:
    """Bring SIZE bytes, read the answer, and stay."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    writer.write(UPLOAD)
    for _ in range(SIZE // (256 * KIB)):
        writer.write(bytes(256 * KIB))
        await writer.drain()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    return writer


@pytest.mark.alone
@pytest.mark.parametrize("secure", [False, True], ids=["HTTP", "HTTPS"])
async def test_connections_that_have_brought_megabytes_keep_little_and_leave_nothing(
    product: Product, *, secure: bool
) -> None:
    port, tls, rss = product.https if secure else product.http, trusting() if secure else None, product.process.rss
    (await upload(port, tls)).close()  # what is made once is there then
    before = rss()
    writers: list[asyncio.StreamWriter] = []
    try:
        async with asyncio.timeout(50):
            writers += await asyncio.gather(*(upload(port, tls) for _ in range(UPLOADS)))
            while rss() - before > UPLOADS * HELD:
                await asyncio.sleep(0.5)
            for writer in writers:
                writer.transport.abort()
            while rss() - before > LEFT:
                await asyncio.sleep(0.5)
    finally:
        for writer in writers:
            writer.transport.abort()
