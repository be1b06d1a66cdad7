"""A Nextcloud that is slow or hangs, behind a real HaRP: who is made to wait for whom, and for how long."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.live.processes import PATIENCE
from tests.live.product import Product
from tests.live.recorder import recorder

CROWD = 1000  # connections of one client
ATTACKER, VICTIM = "198.51.100.1", "198.51.100.2"


class SlowNextcloud:
    """Answers user-info and exapp-meta after `delay` seconds, in any number at once. `hangs`: not at all."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.hangs = False
        self.calls: list[str] = []
        self.port = 0
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.close()
        for writer in self._connections:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.calls.append(head)
                await asyncio.sleep(self.delay)
                if self.hangs:
                    continue
                status, body = self._answer(head)
                content = json.dumps(body).encode()
                writer.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%b" % (status, len(content), content))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        finally:
            self._connections.discard(writer)

    def _answer(self, head: str) -> tuple[int, dict[str, object]]:
        target = urlsplit(head.split(" ")[1])
        if target.path.endswith("user-info"):
            if "authorization: Basic" in head:
                return 401, {"message": "wrong password"}
            return 200, {"user_id": "bob", "access_level": 1}
        if parse_qs(target.query)["appId"] not in (["later"], ["rec"]):
            return 401, {"message": "unknown"}
        return 200, {
            "exapp_token": "t",
            "exapp_version": "1",
            "host": "127.0.0.1",
            "port": self.exapp,
            "routes": ROUTES,
        }

    exapp = 0


ROUTES = [{"url": "^/public", "access_level": 0}, {"url": "^/user", "access_level": 1}]


@pytest.fixture
async def nextcloud() -> AsyncIterator[SlowNextcloud]:
    nextcloud = SlowNextcloud()
    await nextcloud.start()
    yield nextcloud
    nextcloud.stop()


@pytest.fixture
async def product(nextcloud: SlowNextcloud, tmp_path: Path) -> AsyncIterator[Product]:
    """A HaRP that trusts the tests' word on client addresses, with the ExApp "rec"."""
    product = Product(
        tmp_path,
        f"http://127.0.0.1:{nextcloud.port}",
        HP_TRUSTED_PROXY_IPS="127.0.0.1",
        HP_BLACKLIST_COUNT="10",
        HP_LOG_LEVEL="warning",
        HP_TIMEOUT_DRAIN="1s",  # for what a slow Nextcloud has not answered at the end
    )
    await asyncio.to_thread(product.start)
    async with recorder() as exapp:
        nextcloud.exapp = exapp.port
        await asyncio.to_thread(product.register, "rec", "127.0.0.1", exapp.port, public=0, user=1)
        yield product
    assert await asyncio.to_thread(product.stop) == 0


async def asked(product: Product, target: str, address: str, *lines: str) -> tuple[int, float]:
    """The status of a GET over a connection of its own, and how long it took."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", product.http)
    try:
        head = "".join(f"{line}\r\n" for line in (f"X-Forwarded-For: {address}", *lines))
        writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{head}\r\n".encode())
        status = int((await reader.read()).split(b" ", 2)[1])
        return status, time.monotonic() - began
    finally:
        writer.close()


async def seconds_without_nextcloud(product: Product) -> float:
    """What a page takes at this moment for which Nextcloud is not asked: all that a busy machine adds."""
    status, seconds = await asked(product, "/exapps/rec/public", VICTIM)
    assert status == 200
    return seconds


def session(name: object) -> str:
    return f"Cookie: oc_sessionPassphrase={name}"


async def until_called(nextcloud: SlowNextcloud, calls: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(nextcloud.calls) < calls:
            await asyncio.sleep(0.005)


async def test_random_sessions_of_one_address_do_not_delay_the_page_of_another(
    product: Product, nextcloud: SlowNextcloud
) -> None:
    nextcloud.delay = 0.25
    crowd = [
        asyncio.create_task(asked(product, "/exapps/rec/user", ATTACKER, session(number))) for number in range(CROWD)
    ]
    await until_called(nextcloud, 16)
    status, seconds = await asked(product, "/exapps/rec/user", VICTIM, session("the victim's"))
    control = await seconds_without_nextcloud(product)
    for task in crowd:
        task.cancel()
    await asyncio.wait(crowd)
    assert status == 200
    assert seconds < 1 + control


async def test_random_app_ids_of_one_address_do_not_delay_an_app_that_another_asks_for_first(
    product: Product, nextcloud: SlowNextcloud
) -> None:
    nextcloud.delay = 0.1
    crowd = [asyncio.create_task(asked(product, f"/exapps/no{number}/x", ATTACKER)) for number in range(CROWD)]
    crowd.append(asyncio.create_task(asked(product, "/exapps/later/public", ATTACKER)))
    await until_called(nextcloud, 8)
    status, seconds = await asked(product, "/exapps/later/public", VICTIM)
    control = await seconds_without_nextcloud(product)
    for task in crowd:
        task.cancel()
    await asyncio.wait(crowd)
    assert status == 200
    assert seconds < 1 + control


async def test_a_burst_of_a_thousand_wrong_passwords_makes_a_handful_of_calls(
    product: Product, nextcloud: SlowNextcloud
) -> None:
    nextcloud.delay = 0.05

    def wrong(number: int) -> str:
        return f"Authorization: Basic {base64.b64encode(b'bob:%d' % number).decode()}"

    results = await asyncio.gather(
        *(asked(product, "/exapps/rec/user", ATTACKER, wrong(number)) for number in range(CROWD))
    )
    made = sum("user-info" in call for call in nextcloud.calls)
    assert 10 <= made <= 17
    assert {status for status, _ in results} == {403, 429}
    assert sum(status == 429 for status, _ in results) >= CROWD - 17


async def test_a_nextcloud_that_hangs_costs_public_routes_a_moment_and_the_others_one_timeout(
    product: Product, nextcloud: SlowNextcloud
) -> None:
    nextcloud.hangs = True
    status, seconds = await asked(product, "/exapps/rec/public", VICTIM, session(1))
    assert status == 200
    assert seconds < 3.5
    status, seconds = await asked(product, "/exapps/rec/user", VICTIM, session(2))
    assert status == 503
    assert 20 < seconds < 27
    for number in range(20):  # from now on at once
        for target, expected in (("/exapps/rec/public", 200), ("/exapps/rec/user", 503)):
            status, seconds = await asked(product, target, VICTIM, session(number))
            assert status == expected
            assert seconds < 0.5
    nextcloud.hangs = False
    async with asyncio.timeout(PATIENCE):
        while (await asked(product, "/exapps/rec/user", VICTIM, session("again")))[0] != 200:
            await asyncio.sleep(0.1)
