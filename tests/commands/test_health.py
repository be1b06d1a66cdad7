"""`harp health` against real listeners."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from harp.commands.health import problem_of
from harp.frontend.connection import serving
from harp.net.deadlines import Deadlines
from harp.net.listen import bound_sockets, listen
from harp.settings import Address, Settings, load
from harp.status.admin import AdminGate
from harp.status.conditions import Condition
from harp.status.engines import EngineLine
from harp.status.pages import Pages


class Fine:
    """Facts of a process that is well."""

    def listeners(self) -> dict[str, Condition]:
        return {}

    def nextcloud(self) -> Condition | None:
        return None

    def draining(self) -> bool:
        return False

    def engines(self) -> list[EngineLine]:
        return []


def settings(directory: Path, **places: str) -> Settings:
    return load(
        {
            "HP_SHARED_KEY": "the shared key of these tests",
            "NC_INSTANCE_URL": "https://cloud.example.com",
            "HP_CERTS_DIR": str(directory),
            **places,
        }
    )


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@asynccontextmanager
async def listeners(directory: Path) -> AsyncIterator[dict[str, str]]:
    """An HTTP and a tunnel listener on TCP, an admin listener on a unix socket; the variables that name them."""
    path = directory / "admin.sock"
    servers: list[Any] = [await asyncio.start_server(accept, "127.0.0.1", 0) for _ in range(2)]
    http, frp = (server.sockets[0].getsockname()[1] for server in servers)
    gate = AdminGate(settings(directory), Pages(Fine()), Deadlines())
    servers += listen(bound_sockets((Address("", 0, str(path)),)), serving(gate, secure=False))
    try:
        yield {
            "HP_EXAPPS_ADDRESS": f"0.0.0.0:{http}",
            "HP_FRP_ADDRESS": f"127.0.0.1:{frp}",
            "HP_ADMIN_ADDRESS": str(path),
            "HP_EXAPPS_HTTPS_ADDRESS": f"127.0.0.1:{free_port()}",
        }
    finally:
        await gate.close()
        gate.deadlines.close()
        await asyncio.sleep(0.01)  # connections are accepted, and end, in the loop's next turns
        for server in servers:
            server.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def test_a_process_whose_listeners_all_answer_is_healthy(tmp_path: Path) -> None:
    async with listeners(tmp_path) as places:
        assert await asyncio.to_thread(problem_of, settings(tmp_path, **places)) is None


async def test_a_listener_that_does_not_accept_is_named(tmp_path: Path) -> None:
    async with listeners(tmp_path) as places:
        port = free_port()
        gone = settings(tmp_path, **places | {"HP_FRP_ADDRESS": f"127.0.0.1:{port}"})
        problem = await asyncio.to_thread(problem_of, gone)
    assert problem == f"the FRP listener 127.0.0.1:{port} does not accept connections (Connection refused)"


async def test_https_is_asked_for_only_with_a_certificate(tmp_path: Path) -> None:
    async with listeners(tmp_path) as places:
        (tmp_path / "cert.pem").touch()
        problem = await asyncio.to_thread(problem_of, settings(tmp_path, **places))
    assert problem is not None
    assert problem.startswith("the HTTPS listener ")


async def test_an_admin_listener_that_is_gone_is_named(tmp_path: Path) -> None:
    async with listeners(tmp_path) as places:
        gone = settings(tmp_path, **places | {"HP_ADMIN_ADDRESS": str(tmp_path / "no.sock")})
        problem = await asyncio.to_thread(problem_of, gone)
    assert problem == f"the admin listener unix:{tmp_path}/no.sock does not answer (No such file or directory)"


async def test_another_program_in_place_of_the_admin_listener_is_told(tmp_path: Path) -> None:
    async with listeners(tmp_path) as places:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        other = settings(tmp_path, **places | {"HP_ADMIN_ADDRESS": f"127.0.0.1:{port}"})
        problem = await asyncio.to_thread(problem_of, other)
        server.close()
        await server.wait_closed()
    assert problem == f"the admin listener 127.0.0.1:{port} does not answer (it does not speak HTTP)"


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"220 mail.example.com ESMTP\r\n")
    writer.close()
