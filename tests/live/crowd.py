"""Many tunnel clients in a process of their own: `python -m tests.live.crowd PORT CERTIFICATES NUMBER`.

Each logs in once, many at a time, and says no more. Prints how many could, and ends when its input does.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

import uvloop

from harp.wire import frp
from harp.wire.frp import LoginResp, MessageReader
from tests.live.product import KEY
from tests.live.world import raise_descriptor_limit
from tests.tunnel.peer import good_login

AT_ONCE = 250  # whose handshakes a busy machine manages within the time for a login


def mutual(directory: Path) -> ssl.SSLContext:
    """TLS of a client with the server's files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(directory / "ca.crt")
    context.load_cert_chain(directory / "client.crt", directory / "client.key")
    return context


async def log_in(port: int, tls: ssl.SSLContext) -> asyncio.StreamWriter | None:
    """One client without yamux; None when it was not let in."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="harp.nc")
        writer.write(frp.encode(good_login(metas={"token": KEY}, pool_count=0), 1))
        messages = MessageReader(1)
        while (message := messages.next()) is None:
            data = await reader.read(4096)
            if not data:
                return None
            messages.feed(data)
    except OSError:
        return None
    return writer if isinstance(message, LoginResp) and not message.error else None


async def crowd(port: int, directory: Path, number: int) -> None:
    """AT_ONCE at a time, and everybody stays."""
    tls = mutual(directory)
    some = asyncio.Semaphore(AT_ONCE)

    async def enter() -> asyncio.StreamWriter | None:
        async with some:
            return await log_in(port, tls)

    clients = await asyncio.gather(*(enter() for _ in range(number)))
    print(sum(client is not None for client in clients), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    raise_descriptor_limit(4096)
    uvloop.run(crowd(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
