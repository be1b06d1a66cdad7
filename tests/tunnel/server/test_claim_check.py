"""Claims of tunnel clients are looked at: by their key, and by what Nextcloud says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from harp.logs import RareWarnings
from harp.policy.exapp import ExApp, RecordFact, Trouble, UnknownApp
from harp.policy.keys import own_key
from harp.settings import load
from harp.state.engine_names import EngineNames
from harp.tunnel.server.claim_check import ClaimCheck
from tests.fakes.waiting import settled

KEY = "a-shared-key-for-tests"
ENV = {"HP_SHARED_KEY": KEY, "NC_INSTANCE_URL": "http://cloud"}
HELLO = ExApp("hello", "t", "1", "127.0.0.1", 23001)
UNKNOWN = UnknownApp()


class FakeRecords:
    """Knows `known`; asked, it gives `fresh` one after another, the last one again and again."""

    def __init__(self, known: RecordFact | None, *fresh: RecordFact) -> None:
        self.known, self.fresh = known, list(fresh) or [UNKNOWN]
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    def record(self, app_id: str) -> RecordFact | None:
        return self.known if app_id == "hello" else None

    async def record_of(self, app_id: str) -> RecordFact:
        self.asked.append(app_id)
        await self.open.wait()
        return self.fresh.pop(0) if len(self.fresh) > 1 else self.fresh[0]


class Checks:
    """Makes checks over one directory and one clock of warnings."""

    def __init__(self, directory: Path) -> None:
        self.engines = EngineNames(directory)

    def __call__(self, records: FakeRecords, claims: str = "strict", patience: float = 0.05) -> ClaimCheck:
        settings = load({**ENV, "HP_TUNNEL_CLAIMS": claims})
        warnings = RareWarnings(lambda: 0.0)
        return ClaimCheck(settings, records, self.engines, warnings, patience=patience, pause=0.001)


@pytest.fixture
def check(tmp_path: Path) -> Checks:
    return Checks(tmp_path)


def test_own_keys_are_known_and_the_shared_one_is_none(check: Checks) -> None:
    gate = check(FakeRecords(None))
    assert gate.knows(own_key(KEY, "hello"))
    assert not gate.knows(KEY)
    assert not gate.knows(own_key("guess", "hello"))


async def test_an_exapp_gets_its_own_port_without_a_question(check: Checks) -> None:
    records = FakeRecords(HELLO)
    assert await check(records).objection(KEY, "Hello", 23001) == ""
    assert records.asked == []


async def test_a_port_that_does_not_fit_is_asked_anew_the_app_may_be_a_new_one(check: Checks) -> None:
    records = FakeRecords(HELLO, ExApp("hello", "t", "2", "127.0.0.1", 23005))
    assert await check(records).objection(KEY, "hello", 23005) == ""
    assert records.asked == ["hello"]


@pytest.mark.parametrize("fresh", [HELLO, UnknownApp(), Trouble("away")])
async def test_strict_refuses_what_nextcloud_does_not_confirm(check: Checks, fresh: RecordFact) -> None:
    assert await check(FakeRecords(None, fresh)).objection(KEY, "hello", 23002) != ""


async def test_warn_lets_it_pass_at_once_and_asks_behind_the_clients_back(check: Checks) -> None:
    records = FakeRecords(None)
    records.open.clear()
    gate = check(records, "warn")
    assert await gate.objection(KEY, "hello", 23002) == ""
    await settled()
    assert records.asked == ["hello"]
    await gate.close()


@pytest.mark.parametrize("claims", ["warn", "strict"])
async def test_an_engine_that_was_added_has_its_port_without_a_word(check: Checks, claims: str) -> None:
    with check.engines.changing() as engines:
        engines[24001] = "gpu-box"
    records = FakeRecords(None)
    with capture_logs() as logged:
        assert await check(records, claims).objection(KEY, "gpu-box", 24001) == ""
    assert logged == []
    assert records.asked == []


@pytest.mark.parametrize("claims", ["warn", "strict"])
async def test_the_port_of_an_engine_is_refused_to_any_other_name(check: Checks, claims: str) -> None:
    with check.engines.changing() as engines:
        engines[24001] = "gpu-box"
    objection = await check(FakeRecords(None), claims).objection(KEY, "evil", 24001)
    assert objection.startswith("port 24001 belongs to the engine gpu-box")


async def test_an_engine_nobody_has_named_is_refused_when_strict(check: Checks) -> None:
    objection = await check(FakeRecords(None), "strict").objection(KEY, "deploy-daemon-1", 24007)
    assert objection.startswith("no engine is registered for port 24007")
    assert "harp engine register deploy-daemon-1 --port 24007" in objection


async def test_an_engine_nobody_has_named_is_a_warning_otherwise(check: Checks) -> None:
    with capture_logs() as logged:
        assert await check(FakeRecords(None), "warn").objection(KEY, "deploy-daemon-1", 24007, "192.0.2.1") == ""
    (line,) = logged
    assert (line["event"], line["log_level"], line["source"]) == (
        "tunnel claims an engine port",
        "warning",
        "192.0.2.1",
    )


async def test_names_that_cannot_be_read_are_none_and_a_warning(check: Checks) -> None:
    check.engines.path.write_text("{")
    with capture_logs() as logged:
        assert await check(FakeRecords(None), "warn").objection(KEY, "gpu-box", 24001) == ""
    assert logged[0]["event"] == "engine names cannot be read"


async def test_a_nextcloud_that_is_late_is_asked_again_while_the_client_waits(check: Checks) -> None:
    records = FakeRecords(None, Trouble("connection refused"), Trouble("connection refused"), HELLO)
    assert await check(records, patience=10).objection(own_key(KEY, "hello"), "hello", 23001) == ""
    assert records.asked == ["hello"] * 3


async def test_a_nextcloud_that_stays_away_is_the_reason_of_a_refusal(check: Checks) -> None:
    objection = await check(FakeRecords(None, Trouble("no route"))).objection(own_key(KEY, "hello"), "hello", 23001)
    assert objection == "Nextcloud cannot be asked which port hello has: no route"


async def test_a_nextcloud_that_never_answers_is_not_waited_for_longer_than_the_client_does(check: Checks) -> None:
    records = FakeRecords(None)
    records.open.clear()
    objection = await check(records).objection(own_key(KEY, "hello"), "hello", 23001)
    assert objection == "Nextcloud cannot be asked which port hello has: no answer within 0.05 s"


@pytest.mark.parametrize("claims", ["warn", "strict"])
@pytest.mark.parametrize(("name", "port"), [("other", 23001), ("hello", 24001), ("engine", 24001)])
async def test_an_own_key_is_never_good_for_anything_else(check: Checks, claims: str, name: str, port: int) -> None:
    token = own_key(KEY, "hello")
    assert "hello only" in await check(FakeRecords(HELLO), claims).objection(token, name, port)


async def test_an_own_key_is_good_for_its_exapp(check: Checks) -> None:
    assert await check(FakeRecords(HELLO)).objection(own_key(KEY, "hello"), "hello", 23001) == ""


@pytest.mark.parametrize("claims", ["warn", "strict"])
async def test_an_own_key_does_not_open_the_port_of_another_exapp(check: Checks, claims: str) -> None:
    objection = await check(FakeRecords(HELLO, HELLO), claims).objection(own_key(KEY, "hello"), "hello", 23002)
    assert objection == "Nextcloud gave the ExApp hello port 23001, not 23002"
