"""Claims of tunnel clients are looked at: by their key, and by what Nextcloud says."""

from __future__ import annotations

import asyncio

import pytest

from harp.policy.container import own_key
from harp.policy.exapp import ExApp, RecordFact, Trouble, UnknownApp
from harp.settings import load
from harp.tunnel.server.claim_check import Vetting

KEY = "a-shared-key-for-tests"
ENV = {"HP_SHARED_KEY": KEY, "NC_INSTANCE_URL": "http://cloud"}
HELLO = ExApp("hello", "t", "1", "127.0.0.1", 23001)
UNKNOWN = UnknownApp()


class FakeRecords:
    def __init__(self, known: RecordFact | None, fresh: RecordFact = UNKNOWN) -> None:
        self.known, self.fresh = known, fresh
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    def record(self, app_id: str) -> RecordFact | None:
        return self.known if app_id == "hello" else None

    async def record_of(self, app_id: str) -> RecordFact:
        self.asked.append(app_id)
        await self.open.wait()
        return self.fresh


def vetting(records: FakeRecords, claims: str = "strict") -> Vetting:
    return Vetting(load({**ENV, "HP_TUNNEL_CLAIMS": claims}), records)


def test_own_keys_are_known_and_the_shared_one_is_none() -> None:
    gate = vetting(FakeRecords(None))
    assert gate.knows(own_key(KEY, "hello"))
    assert not gate.knows(KEY)
    assert not gate.knows(own_key("guess", "hello"))


async def test_an_exapp_gets_its_own_port_without_a_question() -> None:
    records = FakeRecords(HELLO)
    assert await vetting(records).objection(KEY, "Hello", 23001) == ""
    assert records.asked == []


async def test_a_port_that_does_not_fit_is_asked_anew_the_app_may_be_a_new_one() -> None:
    records = FakeRecords(HELLO, ExApp("hello", "t", "2", "127.0.0.1", 23005))
    assert await vetting(records).objection(KEY, "hello", 23005) == ""
    assert records.asked == ["hello"]


@pytest.mark.parametrize("fresh", [HELLO, UnknownApp(), Trouble("away")])
async def test_strict_refuses_what_nextcloud_does_not_confirm(fresh: RecordFact) -> None:
    assert await vetting(FakeRecords(None, fresh)).objection(KEY, "hello", 23002) != ""


async def test_warn_lets_it_pass_at_once_and_asks_behind_the_clients_back() -> None:
    records = FakeRecords(None)
    records.open.clear()
    gate = vetting(records, "warn")
    assert await gate.objection(KEY, "hello", 23002) == ""
    await asyncio.sleep(0)
    assert records.asked == ["hello"]
    await gate.close()


@pytest.mark.parametrize("claims", ["warn", "strict"])
async def test_engines_are_not_nextclouds_affair(claims: str) -> None:
    records = FakeRecords(None)
    assert await vetting(records, claims).objection(KEY, "gpu-box", 24001) == ""
    assert records.asked == []


@pytest.mark.parametrize("claims", ["warn", "strict"])
@pytest.mark.parametrize(("name", "port"), [("other", 23001), ("hello", 24001), ("engine", 24001)])
async def test_an_own_key_is_never_good_for_anything_else(claims: str, name: str, port: int) -> None:
    token = own_key(KEY, "hello")
    assert "hello only" in await vetting(FakeRecords(HELLO), claims).objection(token, name, port)


async def test_an_own_key_is_good_for_its_exapp() -> None:
    assert await vetting(FakeRecords(HELLO)).objection(own_key(KEY, "hello"), "hello", 23001) == ""


@pytest.mark.parametrize("claims", ["warn", "strict"])
async def test_an_own_key_does_not_open_the_port_of_another_exapp(claims: str) -> None:
    objection = await vetting(FakeRecords(HELLO, HELLO), claims).objection(own_key(KEY, "hello"), "hello", 23002)
    assert objection == "Nextcloud gave the ExApp hello port 23001, not 23002"
