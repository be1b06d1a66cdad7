"""The admin listener: alive and ready are two questions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from harp.status.admin import application
from harp.status.conditions import Condition
from harp.status.engines import EngineLine, EngineTunnel

Client = TestClient[Request, Application]


class FakeFacts:
    """A process whose state the test sets."""

    def __init__(self) -> None:
        self.http = Condition(True, "0.0.0.0:8780")
        self.asked: Condition | None = Condition(True, "answered 200")
        self.stopping = False
        self.known: list[EngineLine] = []

    def listeners(self) -> dict[str, Condition]:
        return {"http": self.http, "frp": Condition(True, "0.0.0.0:8782")}

    def nextcloud(self) -> Condition | None:
        return self.asked

    def draining(self) -> bool:
        return self.stopping

    def engines(self) -> list[EngineLine]:
        return self.known


@pytest.fixture
def facts() -> FakeFacts:
    return FakeFacts()


@pytest.fixture
async def client(facts: FakeFacts) -> AsyncIterator[Client]:
    async with TestClient(TestServer(application(facts))) as client:
        yield client


async def test_heartbeat_looks_at_nothing(client: Client, facts: FakeFacts) -> None:
    facts.http = Condition(False, "closed")
    answer = await client.get("/heartbeat")
    assert (answer.status, await answer.json()) == (200, {"status": "ok"})


async def test_a_process_with_all_listeners_up_is_healthy_and_ready(client: Client) -> None:
    healthy, ready = await client.get("/healthz"), await client.get("/readyz")
    assert (healthy.status, ready.status) == (200, 200)
    assert await ready.json() == {
        "status": "ready",
        "conditions": {
            "http": {"ok": True, "detail": "0.0.0.0:8780"},
            "frp": {"ok": True, "detail": "0.0.0.0:8782"},
            "accepting": {"ok": True, "detail": "accepting requests"},
            "nextcloud": {"ok": True, "detail": "answered 200"},
        },
    }


async def test_a_listener_that_is_down_makes_it_unhealthy_and_unready(client: Client, facts: FakeFacts) -> None:
    facts.http = Condition(False, "address already in use")
    healthy, ready = await client.get("/healthz"), await client.get("/readyz")
    assert (healthy.status, ready.status) == (503, 503)
    assert (await healthy.json())["conditions"]["http"] == {"ok": False, "detail": "address already in use"}


async def test_before_nextcloud_was_asked_it_is_healthy_but_not_ready(client: Client, facts: FakeFacts) -> None:
    facts.asked = None
    healthy, ready = await client.get("/healthz"), await client.get("/readyz")
    assert (healthy.status, ready.status) == (200, 503)
    assert (await ready.json())["conditions"]["nextcloud"] == {"ok": False, "detail": "not asked yet"}


async def test_a_nextcloud_out_of_reach_is_shown_but_does_not_make_us_unready(client: Client, facts: FakeFacts) -> None:
    facts.asked = Condition(False, "cloud.example.com: name does not resolve")
    ready = await client.get("/readyz")
    assert ready.status == 200
    assert (await ready.json())["conditions"]["nextcloud"]["detail"] == "cloud.example.com: name does not resolve"


async def test_while_draining_it_is_healthy_but_not_ready_even_with_listeners_closed(
    client: Client, facts: FakeFacts
) -> None:
    facts.stopping = True
    facts.http = Condition(False, "closed")
    healthy, ready = await client.get("/healthz"), await client.get("/readyz")
    assert (healthy.status, ready.status) == (200, 503)
    assert (await ready.json())["conditions"]["accepting"]["ok"] is False


async def test_health_answers_are_never_cached(client: Client) -> None:
    assert (await client.get("/readyz")).headers["cache-control"] == "no-store"


async def test_engines_are_listed(client: Client, facts: FakeFacts) -> None:
    tunnel = EngineTunnel("gpu1", "192.0.2.7", "gpu", since=1000.0, round_trip=0.02)
    facts.known = [EngineLine(24001, "29.0.1", "1.44 to 1.52", False, 2000.0, "", tunnel)]
    answer = await client.get("/engines")
    assert answer.status == 200
    (line,) = await answer.json()
    assert (line["port"], line["version"], line["api"], line["trouble"]) == (24001, "29.0.1", "1.44 to 1.52", "")
    assert line["tunnel"]["round_trip"] == 0.02
