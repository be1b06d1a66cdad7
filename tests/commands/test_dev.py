"""`harp dev`: a program on this machine behind a HaRP, with its requests as they end."""

from __future__ import annotations

import argparse
import http.client
import signal
import sys
from pathlib import Path

import pytest
from aiohttp import ClientSession, encode_basic_auth

from harp.commands.dev import Dev, DevOptions, target
from harp.policy.exapp import Level
from harp.testing.hello import Hello
from tests.fakes.environment import bare
from tests.live.processes import Process, free_port

SECRET = "of the app"


async def test_the_program_gets_requests_of_those_who_may_with_their_identity() -> None:
    async with (
        Hello("mine", SECRET) as program,
        Dev(DevOptions("mine", "127.0.0.1", program.port, Level.USER, 0, 0, SECRET)) as dev,
        ClientSession(f"http://127.0.0.1:{dev.harp.http_ports[0]}") as client,
    ):
        assert dev.environment["APP_PORT"] == str(program.port)
        assert f"export APP_SECRET='{SECRET}'" in dev.text()
        assert (await client.get("/exapps/mine/public")).status == 403
        user = {"Authorization": encode_basic_auth("user", "user")}
        answer = await client.get("/exapps/mine/public", headers=user)
        assert await answer.text() == "Hello user, this is /public\n"


def test_requests_are_printed_as_they_end(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "harp", "dev", "mine", "--to", f"localhost:{free_port()}"]
    argv = [*command, "--port", str(port), "--admin-port", str(free_port())]
    with Process(argv, tmp_path / "log", env=bare()) as process:
        process.until(lambda: "Requests, as they end" in process.text(), "invitation")
        ask(port, "/exapps/mine/page?token=secret")
        process.until(lambda: "503 GET /exapps/mine/page?token=…" in process.text(), "request")
        assert "Connection refused" in process.text()
        process.signal(signal.SIGINT)
        assert process.wait() == 0


def ask(port: int, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    connection.getresponse().read()
    connection.close()


def test_where_the_program_listens_is_read_off_the_argument() -> None:
    assert target("localhost:9000") == target("127.0.0.1:9000") == target(":9000") == target("9000")
    assert target("[::1]:9000") == ("::1", 9000)
    assert target("box:80") == ("box", 80)
    for text in ("box", "box:0", "localhost:23001"):
        with pytest.raises(argparse.ArgumentTypeError):
            target(text)
