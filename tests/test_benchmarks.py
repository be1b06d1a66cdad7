"""The benchmarks' own arithmetic: goals, the table, the picture, and clients that must not flatter us."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from xml.etree import ElementTree

import pytest
from benchmarks.client import ask_all, connect_websockets, get, open_loop
from benchmarks.exapp import Service
from benchmarks.latency import percentile
from benchmarks.picture import draw
from benchmarks.publication import DOCS, replaced
from benchmarks.report import MET, MISSED, UNKNOWN, Result, describe, figure, markdown, table
from benchmarks.trial import EXAPP, OURS, Limit, Ratio, Row

from tests.fakes.waiting import until

RATIO = Row("speed", "req/s", Ratio(0.85, of="HAProxy"))
ADDED = Row("latency", "ms", Limit(0.3, over=EXAPP))
FIGURE = Row("memory", "MB", Limit(80))
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_ratio_is_that_of_the_medians_of_all_turns() -> None:
    result = Result(RATIO, {OURS: [80.0, 90.0, 10.0], "HAProxy": [100.0, 100.0, 500.0]})
    assert result.reached == pytest.approx(0.8)
    assert result.verdict == MISSED


def test_a_limit_may_be_over_what_another_takes() -> None:
    assert Result(ADDED, {OURS: [1.25], EXAPP: [1.0]}).verdict == MET
    assert Result(ADDED, {OURS: [1.35], EXAPP: [1.0]}).verdict == MISSED


def test_exactly_the_limit_is_within_it() -> None:
    assert Result(FIGURE, {OURS: [80.0]}).verdict == MET
    assert Result(FIGURE, {OURS: [80.1]}).verdict == MISSED


@pytest.mark.parametrize("figures", [{}, {OURS: [1.0]}, {OURS: [1.0], EXAPP: []}, {EXAPP: [1.0]}])
def test_a_goal_is_not_met_by_what_was_not_measured(figures: dict[str, list[float]]) -> None:
    result = Result(ADDED, figures, error="RuntimeError: no answer")
    assert result.reached is None
    assert result.verdict == UNKNOWN
    assert "FAILED: RuntimeError: no answer" in table([result])


def test_the_table_tells_figures_goal_and_verdict() -> None:
    line = table([Result(RATIO, {OURS: [41_000.0], "HAProxy": [50_000.0]})])
    assert line == "speed  ours 41,000, HAProxy 50,000 req/s  0.82 (goal ≥ 0.85 of HAProxy): not met"


def test_the_table_of_the_documentation_shows_what_was_missed() -> None:
    rows = markdown([Result(ADDED, {EXAPP: [0.1], OURS: [0.5]}), Result(FIGURE, {OURS: [50.0]})]).splitlines()[2:]
    assert rows == [
        "| latency | 0.5 ms | the ExApp itself 0.1 | ≤ 0.3 over the ExApp itself | +0.4 | **not met** |",
        "| memory | 50 MB |  | ≤ 80 | 50 | met |",
    ]


def test_programs_read_goal_and_verdict() -> None:
    content = describe([Result(RATIO, {OURS: [9.0], "HAProxy": [10.0]})], rounds=1)
    assert content["rounds"] == 1
    row = json.loads(json.dumps(content))["rows"][0]
    assert row["goal"] == {"least": 0.85, "of": "HAProxy"}
    assert (row["reached"], row["verdict"], row["figures"]) == (0.9, MET, {OURS: [9.0], "HAProxy": [10.0]})


@pytest.mark.parametrize(("value", "text"), [(12345.6, "12,346"), (99.94, "99.9"), (0.1234, "0.123"), (0.0, "0")])
def test_three_digits_matter(value: float, text: str) -> None:
    assert figure(value) == text


def test_percentiles() -> None:
    values = [float(value) for value in range(101)]
    assert (percentile(values, 50), percentile(values, 99)) == (50.0, 99.0)


def test_the_picture_is_xml_with_a_bar_for_every_contender_and_a_line_for_every_goal() -> None:
    results = [Result(RATIO, {OURS: [9.0], "HAProxy <2>": [8.0], "HAProxy": [10.0]}), Result(FIGURE, {OURS: [81.0]})]
    picture = ElementTree.fromstring(draw(results))
    bars = [bar.get("class") for bar in picture.iter("{http://www.w3.org/2000/svg}rect")]
    assert bars == ["ours", "other", "other", "missed"]
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}line"))) == 2


def test_publishing_replaces_the_figures_and_nothing_else() -> None:
    page = (DOCS / "performance.md").read_text()
    once = replaced(page, "old figures")
    assert replaced(once, "new \\1 figures") == once.replace("old figures", "new \\1 figures")
    with pytest.raises(ValueError, match="marks"):
        replaced("# Another page", "figures")


class Answering(asyncio.Protocol):
    """Takes `seconds` for each answer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._seconds, self._transport.write, ANSWER)


@asynccontextmanager
async def listening(protocol: Callable[[], asyncio.BaseProtocol]) -> AsyncIterator[int]:
    """A server on the yielded port. Waits at the end until all connections are closed."""
    served: list[weakref.ref[asyncio.BaseProtocol]] = []

    def accept() -> asyncio.BaseProtocol:
        accepted = protocol()
        served.append(weakref.ref(accepted))
        return accepted

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    await until(lambda: not any(connection() for connection in served))


async def test_a_slow_answer_counts_for_all_that_wait_behind_it() -> None:
    """Ten requests are due within 0.1 s, and one connection needs 0.05 s for each: the last one is 0.4 s late."""
    async with listening(partial(Answering, 0.05)) as port:
        took = await open_loop(port, get("/"), rate=100, seconds=0.1, count=1)
    assert len(took) == 10
    assert took == sorted(took)
    assert took[-1] > 0.35


async def test_a_load_that_is_not_answered_as_it_should_be_fails() -> None:
    async with listening(partial(Answering, 0.0)) as port:
        await ask_all(port, [get("/")] * 5, at_once=2)
        with pytest.raises(ExceptionGroup) as caught:
            await ask_all(port, [get("/a")], status=400)
    assert "200 in place of 400" in str(caught.value.exceptions[0])


@pytest.fixture
async def exapp() -> AsyncIterator[int]:
    """The port of the benchmarks' ExApp."""
    async with listening(Service) as port:
        yield port


async def test_websockets_get_their_messages_back(exapp: int) -> None:
    sockets = await connect_websockets(exapp, "/echo", 3)
    assert all(0 < seconds < 5 for seconds in await asyncio.gather(*(socket.echo(b"x" * 125) for socket in sockets)))
    for socket in sockets:
        socket.close()


async def test_what_is_no_websocket_is_told(exapp: int) -> None:
    with pytest.raises(ConnectionError, match="no WebSocket"):
        await connect_websockets(exapp, "/other", 1)


async def test_uploads_are_counted_and_events_stamped(exapp: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", exapp)
    writer.write(b"POST /upload HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000))
    assert await reader.readuntil(b"300000") == b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n300000"
    writer.write(get("/events"))
    assert b"text/event-stream" in await reader.readuntil(b"data: ")
    assert int(await reader.readline()) > 0
    writer.close()
