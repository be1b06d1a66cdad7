"""/metrics for Prometheus: made from a snapshot on request, by a library that is loaded at the first scrape.

That happens in a thread, but Python runs one thread at a time, and lets another have its turn after 5 ms only: so the
thread pauses itself after every slice of its work, and the loop waits for a slice at most.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

from harp.frontend.traffic import BOUNDS
from harp.status.pages import Page
from harp.status.snapshot import REPLICA, DurationsLine, Snapshot, TrafficLine, part_of

T = TypeVar("T")
DAY = 86400.0
EDGES = [*map(str, BOUNDS), "+Inf"]
SLICE = 200  # lines, less than a millisecond
APPS = 20  # ExApps whose samples are made in a slice
PAUSE = 0.0001  # seconds


def page(snapshot: Snapshot) -> Page:
    """Return the page."""
    text = "".join(_unhurried(_lines(collected(snapshot)), SLICE))
    return Page(200, text.encode(), kind=CONTENT_TYPE_LATEST)


def _lines(metrics: Iterable[Metric]) -> Iterator[str]:
    """Yield the text format.

    The library's own `generate_latest` examines every name again for each sample: that is most of the time that a page
    of a hundred ExApps would take.
    """
    for metric in metrics:
        yield f"# HELP {metric.name} {_escaped(metric.documentation)}\n# TYPE {metric.name} {metric.type}\n"
        for sample in metric.samples:
            labels = ",".join([f'{name}="{_escaped(value)}"' for name, value in sample.labels.items()])
            yield f"{sample.name}{{{labels}}} {sample.value}\n" if labels else f"{sample.name} {sample.value}\n"
    yield "# EOF\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def collected(snapshot: Snapshot) -> Iterator[Metric]:
    """Return all families of metrics, with the samples of `snapshot`."""
    yield from _of_process(snapshot)
    if snapshot.instances:
        yield from _of_instances(snapshot)
    else:
        yield from _of_one(snapshot)
    text = "Days until a certificate ends; negative once it has."
    left = GaugeMetricFamily("harp_certificate_days_left", text, labels=["file"])
    for certificate in snapshot.certificates:
        left.add_metric([certificate.file], round((certificate.end - time.time()) / DAY, 2))
    yield left


def _of_one(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield what there is of each Nextcloud."""
    yield from _of_requests(snapshot)
    yield from _of_tunnels(snapshot)
    yield from _of_nextcloud(snapshot)
    kept = GaugeMetricFamily("harp_cache_entries", "What HaRP remembers, by kind.", labels=["cache"])
    for name, count in snapshot.caches.items():
        kept.add_metric([name], count)
    yield kept
    bans = snapshot.ban_totals
    yield GaugeMetricFamily("harp_bans", "Addresses that are banned now.", bans.now)
    yield CounterMetricFamily("harp_bans_begun", "Bans that have begun.", bans.begun)
    yield CounterMetricFamily("harp_strikes", "Strikes counted.", bans.strikes)


def _of_instances(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield the same with the label `instance`; what was for none of them has "" there."""
    families: dict[str, Metric] = {}
    for line in (*snapshot.instances, *([snapshot.strangers] if snapshot.strangers else [])):
        for family in _of_one(part_of(snapshot, line)):
            if not line.instance and family.name.startswith("harp_nextcloud_"):
                continue
            samples = [one._replace(labels={"instance": line.instance, **one.labels}) for one in family.samples]
            known = families.setdefault(family.name, family)
            known.samples = samples if known is family else [*known.samples, *samples]
    yield from families.values()
    text = "Clients' connections whose last request was to this Nextcloud; with several Nextclouds only."
    connections = GaugeMetricFamily("harp_instance_connections", text, labels=["instance"])
    text = "Requests under way; with several Nextclouds only."
    running = GaugeMetricFamily("harp_instance_requests_running", text, labels=["instance"])
    text = "Requests that wait for their turn; with several Nextclouds only."
    waiting = GaugeMetricFamily("harp_instance_requests_waiting", text, labels=["instance"])
    for line in snapshot.instances:
        connections.add_metric([line.instance], line.connections)
        running.add_metric([line.instance], line.running)
        waiting.add_metric([line.instance], line.waiting)
    yield from (connections, running, waiting)


def _unhurried(things: Iterable[T], count: int) -> Iterator[T]:
    """Yield the same things, with a pause after each `count` of them."""
    for number, thing in enumerate(things, 1):
        yield thing
        if number % count == 0:
            time.sleep(PAUSE)


def _of_process(snapshot: Snapshot) -> Iterator[Metric]:
    process = snapshot.process
    yield InfoMetricFamily("harp", "The version of HaRP.", {"version": process.version})
    yield GaugeMetricFamily("process_start_time_seconds", "When the process started.", process.started)
    yield CounterMetricFamily("process_cpu_seconds", "CPU time used.", process.cpu)
    yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory.", process.memory)
    yield GaugeMetricFamily("process_open_fds", "Open file descriptors.", process.descriptors)
    yield GaugeMetricFamily("process_max_fds", "Limit of open file descriptors.", process.most_descriptors)
    yield GaugeMetricFamily("harp_connections", "Open connections of clients.", process.connections)
    workers = GaugeMetricFamily("harp_worker_linked", "1 while a worker is linked (HP_WORKERS).", labels=["worker"])
    text = "1 while another replica is linked (HP_CLUSTER_URL)."
    replicas = GaugeMetricFamily("harp_member_linked", text, labels=["member"])
    for member in snapshot.members:
        family = replicas if member.kind == REPLICA else workers
        family.add_metric([member.name], float(member.linked))
    yield from (family for family in (workers, replicas) if family.samples)
    for own in (member for member in snapshot.members if member.kind == REPLICA and member.leads):
        text = "1 while this replica and the store agree who the replicas are (HP_CLUSTER_URL)."
        yield GaugeMetricFamily("harp_store_up", text, float(not own.trouble))
    text = "The longest delay of the event loop in the last minute."
    yield GaugeMetricFamily("harp_loop_lag_seconds", text, process.loop_lag)
    up = GaugeMetricFamily("harp_listener_up", "1 while a listener accepts connections.", labels=["listener"])
    for name, condition in snapshot.listeners.items():
        up.add_metric([name], float(condition.ok))
    yield up


def _of_requests(snapshot: Snapshot) -> Iterator[Metric]:
    """`app` is "" for requests to no ExApp we know, and "app_api" for calls of AppAPI to HaRP itself."""
    kinds = [(line.app, line.traffic) for line in snapshot.apps]
    kinds += [("app_api", snapshot.control), ("", snapshot.others)]
    requests = CounterMetricFamily(
        "harp_requests",
        "Requests, by class of their status: 2xx, ..., none for connections that ended before an answer.",
        labels=["app", "status"],
    )
    received = CounterMetricFamily("harp_received_bytes", "Bytes of request bodies.", labels=["app"])
    sent = CounterMetricFamily("harp_sent_bytes", "Bytes of response bodies.", labels=["app"])
    text = "Seconds from a request's head to the end of its response; upgraded streams such as WebSockets excluded."
    durations = HistogramMetricFamily("harp_request_duration_seconds", text, labels=["app"])
    for app, traffic in _unhurried(kinds, APPS):
        for status, count in traffic.statuses.items():
            if count:
                requests.add_metric([app, status], count)
        if any(traffic.statuses.values()):
            received.add_metric([app], traffic.received)
            sent.add_metric([app], traffic.sent)
            durations.add_metric([app], _cumulative(traffic), traffic.seconds)
    yield from (requests, received, sent, durations, *_of_steps(kinds))
    refusals = CounterMetricFamily("harp_refusals", "Responses that HaRP made itself, by status.", labels=["status"])
    for own, count in sorted(snapshot.refusals.items()):
        refusals.add_metric([str(own)], count)
    yield refusals


def _of_steps(kinds: list[tuple[str, TrafficLine]]) -> Iterator[Metric]:
    """Yield the parts of durations."""
    text = "Seconds from a request's head to the first byte of its response; upgraded streams excluded."
    first = HistogramMetricFamily("harp_request_first_byte_seconds", text, labels=["app"])
    text = "Seconds of waiting, and the requests that had to, for nextcloud, a tunnel, or to connect."
    waits = SummaryMetricFamily("harp_request_wait_seconds", text, labels=["app", "for"])
    for app, traffic in _unhurried(kinds, APPS):
        if traffic.first_bytes is not None and any(traffic.statuses.values()):
            first.add_metric([app], _cumulative(traffic.first_bytes), traffic.first_bytes.seconds)
        for what, line in traffic.waits.items():
            waits.add_metric([app, what], sum(line.buckets), line.seconds)
    yield from (first, waits)


def _cumulative(traffic: TrafficLine | DurationsLine) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for edge, count in zip(EDGES, traffic.buckets, strict=True):
        total += count
        buckets.append((edge, float(total)))
    return buckets


def _of_tunnels(snapshot: Snapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily("harp_tunnels", "Tunnel clients that are connected.", len(snapshot.tunnels))
    yield CounterMetricFamily("harp_tunnels_lost", "Tunnels that ended while they had a port.", snapshot.tunnels_lost)
    streams = GaugeMetricFamily("harp_tunnel_streams", "Open streams in a tunnel.", labels=["name", "port"])
    trips = GaugeMetricFamily("harp_tunnel_round_trip_seconds", "Of a tunnel's last ping.", labels=["name", "port"])
    for tunnel in snapshot.tunnels:
        for name, port in zip(tunnel.names, tunnel.ports, strict=True):
            streams.add_metric([name, str(port)], tunnel.streams)
            if tunnel.round_trip is not None:
                trips.add_metric([name, str(port)], tunnel.round_trip)
    text = "Bytes that came through a tunnel, in all its streams; of multiplexed ones, by the first port."
    received = CounterMetricFamily("harp_tunnel_received_bytes", text, labels=["name", "port"])
    text = "Bytes that went into a tunnel, likewise."
    sent = CounterMetricFamily("harp_tunnel_sent_bytes", text, labels=["name", "port"])
    for tunnel in snapshot.tunnels:
        if tunnel.mux and tunnel.names:
            received.add_metric([tunnel.names[0], str(tunnel.ports[0])], tunnel.received)
            sent.add_metric([tunnel.names[0], str(tunnel.ports[0])], tunnel.sent)
    yield from (streams, trips, received, sent)
    connected = GaugeMetricFamily("harp_app_tunnel_up", "1 while an ExApp's tunnel is connected.", labels=["app"])
    for line in snapshot.apps:
        if line.tunnel:
            connected.add_metric([line.app], float(line.tunnel == "connected"))
    yield connected
    text = "When an ExApp last answered a request, and not with a 5xx."
    answered = GaugeMetricFamily("harp_app_answered_timestamp_seconds", text, labels=["app"])
    for line in snapshot.apps:
        if line.answered is not None:
            answered.add_metric([line.app], line.answered)
    yield answered


def _of_nextcloud(snapshot: Snapshot) -> Iterator[Metric]:
    nextcloud = snapshot.nextcloud
    yield CounterMetricFamily("harp_nextcloud_calls", "Calls to Nextcloud.", nextcloud.calls)
    yield CounterMetricFamily("harp_nextcloud_failures", "Calls without a usable answer.", nextcloud.failures)
    up = nextcloud.condition is not None and nextcloud.condition.ok
    yield GaugeMetricFamily("harp_nextcloud_up", "1 while Nextcloud answers.", float(up))
