"""`harp dev --gateway`: a program on an author's machine as an ExApp of a real HaRP, over our own tunnel client."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, WSMsgType

from harp.testing.hello import Hello
from tests.live.processes import Process, free_port
from tests.live.product import HARP, KEY, Product

APP, PORT = "mine", 23005
TOKEN = f"token of {APP}"


@contextmanager
def dev(product: Product, to: int, log: Path, *more: str, certs: bool = True, key: str = KEY) -> Iterator[Process]:
    argv = [*HARP, "dev", APP, "--to", f"localhost:{to}", "--gateway", f"127.0.0.1:{product.frp}"]
    argv += ["--app-port", str(PORT), *more]
    argv += ["--certs", str(product.certs / "frp")] if certs else []
    with Process(argv, log, env={"HP_SHARED_KEY": key}) as process:
        yield process


async def shown(process: Process, text: str) -> None:
    await asyncio.to_thread(process.until, lambda: text in process.text(), text)


async def test_requests_through_a_real_harp_reach_the_program_and_are_shown(product: Product, tmp_path: Path) -> None:
    product.register(APP, "127.0.0.1", PORT, public=0, static=0, sse=0, ws=0, upload=0, user=1)
    async with Hello(APP, TOKEN) as program, ClientSession(product.url) as client:
        with dev(product, program.port, tmp_path / "log") as process:
            await shown(process, "Requests, as they end")
            base = f"/exapps/{APP}"
            answer = await client.get(f"{base}/public?token=secret", headers={"X-Forwarded-For": "192.0.2.7"})
            assert await answer.text() == "Hello stranger, this is /public\n"
            assert (await client.get(f"{base}/user")).status == 403  # HaRP's own answer, which never comes here
            assert (await client.head(f"{base}/static/70000")).status == 200
            assert len(await (await client.get(f"{base}/static/70000")).read()) == 70000
            body = b"x" * 300_000
            assert (await (await client.put(f"{base}/upload", data=body)).json())["bytes"] == len(body)
            assert (await client.get(f"{base}/sse?count=2&interval=0.01")).status == 200
            async with client.ws_connect(f"{base}/ws") as socket:
                await socket.send_str("hello")
                assert (await socket.receive()).data == "hello"
            assert (await socket.receive()).type is WSMsgType.CLOSED
            assert (await client.get(f"{base}/public/nowhere")).status == 404
            for line in (
                "GET /public?token=…",
                "HEAD /static/70000",
                "GET /static/70000",
                "PUT /upload",
                "GET /sse",
                "101 GET /ws",
            ):
                await shown(process, line)
            await shown(process, "404 GET /public/nowhere")
            text = process.text()
            assert "secret" not in text
            assert "192.0.2.7" in text
            assert "GET /user" not in text
            (static,) = (line for line in text.splitlines() if "200 GET /static/70000" in line)
            assert " 70000 B" in static
            process.signal(signal.SIGINT)
            assert await asyncio.to_thread(process.wait) == 0


async def test_a_program_that_does_not_run_is_a_line_and_may_come_later(product: Product, tmp_path: Path) -> None:
    product.register(APP, "127.0.0.1", PORT)
    port = free_port()
    async with ClientSession(product.url) as client:
        with dev(product, port, tmp_path / "log") as process:
            await shown(process, "Requests, as they end")
            assert (await client.get(f"/exapps/{APP}/public")).status in (502, 503)
            await shown(process, f"127.0.0.1:{port}: Connection refused")
            async with Hello(APP, TOKEN, port=port):
                assert (await client.get(f"/exapps/{APP}/public")).status == 200
                await shown(process, "200 GET /public")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"key": "another key"}, "token"),
        ({"certs": False}, "it may want TLS"),
    ],
)
def test_a_tunnel_that_is_refused_ends_it_with_the_reason(
    product: Product, tmp_path: Path, options: dict[str, object], why: str
) -> None:
    with dev(product, free_port(), tmp_path / "log", **options) as process:  # type: ignore[arg-type]
        assert process.wait() == 1
        assert "Cannot start" in process.text()
        assert why in process.text()
        assert KEY not in process.text()
