"""Tunnels that are lost and come back, as the log tells it by default."""

from __future__ import annotations

from structlog.testing import capture_logs

from harp.logs import RareWarnings
from harp.tunnel.server.news import TunnelNews
from tests.fakes.clock import Clock


async def test_a_tunnel_that_is_lost_and_comes_back_is_a_line_each(clock: Clock) -> None:
    news = TunnelNews(RareWarnings(lambda: clock.now), clock.deadlines)
    with capture_logs() as events:
        news.granted("hello", 23000, "192.0.2.1")
        news.lost("hello", 23000, "192.0.2.1", "connection lost")
        clock.move(90)
        news.granted("hello", 23000, "192.0.2.2")
        news.granted("other", 23001, "192.0.2.1")
    assert [{**event, "log_level": ""} for event in events] == [
        {
            "event": "tunnel lost",
            "reason": "connection lost",
            "source": "hello",
            "port": 23000,
            "address": "192.0.2.1",
            "log_level": "",
        },
        {
            "event": "tunnel back",
            "reason": "connected again",
            "source": "hello",
            "port": 23000,
            "address": "192.0.2.2",
            "away": 90.0,
            "log_level": "",
        },
    ]


async def test_a_tunnel_that_flaps_does_not_fill_the_log(clock: Clock) -> None:
    news = TunnelNews(RareWarnings(lambda: clock.now), clock.deadlines)
    with capture_logs() as events:
        for _ in range(100):
            news.lost("hello", 23000, "192.0.2.1", "connection lost")
            news.granted("hello", 23000, "192.0.2.1")
    assert [event["event"] for event in events] == ["tunnel lost", "tunnel back"]
    assert news.lost_count == 100


async def test_a_harp_that_stops_does_not_mourn_its_tunnels(clock: Clock) -> None:
    news = TunnelNews(RareWarnings(lambda: clock.now), clock.deadlines)
    news.stopping = True
    with capture_logs() as events:
        news.lost("hello", 23000, "192.0.2.1", "HaRP stops")
    assert events == []
