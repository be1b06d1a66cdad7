"""/metrics, as a Prometheus reads it."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from harp.frontend.traffic import BOUNDS
from harp.status.snapshot import DurationsLine, Snapshot
from tests.fakes.facts import HELLO, SOME, TUNNEL, FakeFacts

parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="make setup installs it")
exposition = importlib.import_module("prometheus_client.openmetrics.exposition")
metrics = importlib.import_module("harp.status.metrics")


def scraped(facts: FakeFacts) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by name and values of labels; reading it checks the whole format."""
    made = metrics.page(facts.snapshot())
    assert made.kind.startswith("application/openmetrics-text; version=1.")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(made.body.decode())
        for sample in family.samples
    }


def test_what_an_operator_plots_is_there() -> None:
    found = scraped(FakeFacts())
    expected = {
        ("harp_requests_total", ("hello", "2xx")): 3,
        ("harp_requests_total", ("hello", "5xx")): 1,
        ("harp_received_bytes_total", ("hello",)): 10,
        ("harp_sent_bytes_total", ("hello",)): 2_000_000,
        ("harp_request_duration_seconds_bucket", ("hello", "0.005")): 3,
        ("harp_request_duration_seconds_bucket", ("hello", "60.0")): 3,
        ("harp_request_duration_seconds_bucket", ("hello", "+Inf")): 4,
        ("harp_request_duration_seconds_sum", ("hello",)): 1.5,
        ("harp_request_duration_seconds_count", ("hello",)): 4,
        ("harp_refusals_total", ("403",)): 5,
        ("harp_refusals_total", ("503",)): 1,
        ("harp_connections", ()): 7,
        ("harp_tunnels", ()): 1,
        ("harp_tunnels_lost_total", ()): 1,
        ("harp_tunnel_streams", ("hello", "23000")): 4,
        ("harp_app_tunnel_up", ("hello",)): 1,
        ("harp_bans", ()): 2,
        ("harp_bans_begun_total", ()): 3,
        ("harp_strikes_total", ()): 30,
        ("harp_nextcloud_calls_total", ()): 20,
        ("harp_nextcloud_failures_total", ()): 2,
        ("harp_nextcloud_up", ()): 1,
        ("harp_loop_lag_seconds", ()): 0.002,
        ("process_resident_memory_bytes", ()): 35_000_000,
        ("process_open_fds", ()): 40,
        ("process_max_fds", ()): 20_000,
        ("harp_info", ("1",)): 1,
        ("harp_listener_up", ("http",)): 1,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["harp_certificate_days_left", ("/certs/cert.pem",)] > 0


def test_words_of_clients_cannot_break_the_format() -> None:
    facts = FakeFacts()
    evil = 'a"\\\n} 1\n# EOF'
    facts.known = [msgspec.structs.replace(HELLO, app=evil)]
    assert scraped(facts)["harp_requests_total", (evil, "2xx")] == 3


def of_a_hundred_exapps() -> Snapshot:
    facts = FakeFacts()
    lines = DurationsLine(2.5, (1,) * (len(BOUNDS) + 1))
    full = msgspec.structs.replace(
        SOME,
        statuses=dict.fromkeys(SOME.statuses, 9),
        buckets=lines.buckets,
        first_bytes=lines,
        waits={"tunnel": lines},
    )
    facts.known = [msgspec.structs.replace(HELLO, app=f"app{number}", traffic=full) for number in range(100)]
    tunnels = tuple(msgspec.structs.replace(TUNNEL, names=(f"app{number}",)) for number in range(100))
    return msgspec.structs.replace(facts.snapshot(), tunnels=tunnels)


def test_the_text_is_the_librarys_own() -> None:
    class Collected:
        def collect(self) -> Iterator[Any]:
            yield from metrics.collected(snapshot)

    snapshot = of_a_hundred_exapps()
    own = parser.text_string_to_metric_families(metrics.page(snapshot).body.decode())
    theirs = exposition.generate_latest(Collected(), exposition.ALLOWUTF8).decode()
    assert list(own) == list(parser.text_string_to_metric_families(theirs))


@pytest.mark.alone
def test_a_hundred_exapps_take_less_than_50_ms() -> None:
    snapshot, took = of_a_hundred_exapps(), []
    for _ in range(5):
        began = time.process_time()
        metrics.page(snapshot)
        took.append(time.process_time() - began)
    assert min(took) < 0.05


@pytest.mark.alone
async def test_the_loop_has_many_turns_while_the_samples_of_a_hundred_exapps_are_made() -> None:
    """A thread that does not pause itself keeps the others waiting for 5 ms at a time, so they would have few."""
    snapshot = of_a_hundred_exapps()
    count = metrics.page(snapshot).body.count(b"\n")
    assert max([await turns_beside(snapshot) for _ in range(5)]) >= count / metrics.SLICE / 2


async def turns_beside(snapshot: Snapshot) -> int:
    """How often a loop is asked again while a thread makes the page."""
    made = asyncio.create_task(asyncio.to_thread(metrics.page, snapshot))
    turns = 0
    while not made.done():
        await asyncio.sleep(0.0005)
        turns += 1
    return turns


def test_what_requests_waited_for_is_a_number_and_a_sum() -> None:
    facts = FakeFacts()
    line = DurationsLine(2.5, (1, 2, *[0] * (len(BOUNDS) - 1)))
    facts.known = [replace(HELLO, traffic=replace(SOME, waits={"tunnel": line}, first_bytes=line))]
    samples = scraped(facts)
    assert samples["harp_request_wait_seconds_count", ("hello", "tunnel")] == 3
    assert samples["harp_request_wait_seconds_sum", ("hello", "tunnel")] == 2.5
    assert samples["harp_request_first_byte_seconds_count", ("hello",)] == 3
