"""An answer that breaks off in the middle looks short to every client, also where only the end of all tells it."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme

from tests.live.peers import path_of
from tests.live.processes import Process, free_port
from tests.live.product import Product, running
from tests.live.recorder import RequestRecorder, recorder

DYING = b"close:HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
WHOLE = b"close:HTTP/1.1 200 OK\r\n\r\nabcde"  # its end is the connection's
OLD_GET = b"GET /exapps/rec/x HTTP/1.0\r\n\r\n"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("cut")
    certs = folder / "certs"
    certs.mkdir()
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certs / "cert.pem")
    with running(folder, "http://127.0.0.1:9") as product:
        product.process.until_listening(product.https)
        yield product


@pytest.fixture
async def exapp(product: Product) -> AsyncIterator[RequestRecorder]:
    async with recorder() as exapp:
        exapp.answer = DYING
        product.register("rec", "127.0.0.1", exapp.port)
        yield exapp


async def curl(*arguments: str) -> tuple[int, bytes]:
    """Exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        path_of("curl", "curl"), "-sS", "--max-time", "10", *arguments, stdout=-1, stderr=-1
    )
    printed, _ = await process.communicate()
    return process.returncode or 0, printed


async def read(port: int, tls: ssl.SSLContext | None = None) -> bytes:
    """What an HTTP/1.0 client gets. Raises OSError when the connection does not end as it should."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    writer.write(OLD_GET)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.transport.abort()


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def test_an_http_1_0_client_sees_a_reset(product: Product, exapp: RequestRecorder) -> None:
    with pytest.raises(ConnectionResetError):
        await read(product.http)


async def test_an_http_1_0_client_sees_no_proper_end_of_tls(product: Product, exapp: RequestRecorder) -> None:
    with pytest.raises((ConnectionResetError, ssl.SSLError)):
        await read(product.https, unverified())


async def test_a_whole_answer_ends_properly(product: Product, exapp: RequestRecorder) -> None:
    exapp.answer = WHOLE
    for tls, port in ((None, product.http), (unverified(), product.https)):
        answer = await read(port, tls)
        assert answer.endswith(b"abcde")


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
async def test_curl_fails_at_it(product: Product, exapp: RequestRecorder, version: str) -> None:
    code, _ = await curl(version, f"{product.url}/exapps/rec/x")
    assert code != 0
    exapp.answer = WHOLE
    assert await curl(version, f"{product.url}/exapps/rec/x") == (0, b"abcde")


async def test_nginx_with_its_default_http_1_0_passes_the_failure_on(
    product: Product, exapp: RequestRecorder, tmp_path: Path
) -> None:
    port = free_port()
    temporary = "".join(f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi"))
    temporary += "".join(f"{name}_temp_path {tmp_path}/{name};" for name in ("uwsgi", "scgi"))
    config = tmp_path / "nginx.conf"
    config.write_text(f"""
    daemon off; worker_processes 1; pid {tmp_path}/pid; error_log stderr; {"user root;" if os.geteuid() == 0 else ""}
    events {{ worker_connections 64; }}
    http {{
        access_log off; {temporary}
        server {{
            listen 127.0.0.1:{port};
            location / {{ proxy_pass {product.url}; proxy_http_version 1.0; }}
        }}
    }}""")
    argv = [path_of("nginx", "nginx"), "-p", str(tmp_path), "-c", str(config)]
    with Process(argv, tmp_path / "log", env={"PATH": os.environ["PATH"]}) as nginx:
        nginx.until_listening(port)
        code, _ = await curl(f"http://127.0.0.1:{port}/exapps/rec/x")
        assert code != 0
        exapp.answer = WHOLE
        assert await curl(f"http://127.0.0.1:{port}/exapps/rec/x") == (0, b"abcde")
