"""Requests a second and MiB a second: directly, and through a tunnel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.load import download_by_wrk, download_once, requests_by_h2load, requests_per_second, upload_once
from benchmarks.peers import FILES, MIB, PLAIN, TUNNELED, TUNNELED_SERVICE, Peers
from benchmarks.trial import OURS, Effort, Ratio, Row, Trial, single

CHAIN = "HAProxy-frps-frpc"

Run = Callable[[int, str], float]  # port, target


def direct(peers: Peers, effort: Effort) -> list[Trial]:
    """Through us and through each of the other proxies."""
    wrk = partial(requests_per_second, seconds=effort.seconds)
    h2load = partial(requests_by_h2load, seconds=effort.seconds)
    fetch = partial(download_by_wrk, seconds=effort.seconds)
    cookie = f"Cookie: {peers.cookie}"

    def trial(name: str, unit: str, least: float, run: Run, path: str) -> Trial:
        contenders = {OURS: partial(run, peers.product.http, f"/exapps/{PLAIN}{path}")}
        contenders |= {peer: partial(run, port, path) for peer, port in peers.proxies.items()}
        return single(Row(name, unit, Ratio(least, of="HAProxy")), effort.rounds, contenders, _cached(peers, path))

    return [
        trial("direct, PUBLIC, 1 KiB, 64 connections", "req/s", 0.85, wrk, "/1k"),
        trial("direct, PUBLIC, 1 KiB, by h2load", "req/s", 0.85, h2load, "/1k"),
        trial("direct, USER, session cached", "req/s", 0.75, partial(wrk, headers=[cookie]), "/user/1k"),
        trial("direct, 100 MiB bodies", "MiB/s", 1.0, fetch, "/100m"),
    ]


def tunneled(peers: Peers, effort: Effort) -> list[Trial]:
    """Through us and a real frpc, and through HAProxy, frps and the same frpc."""
    if not peers.chain:
        return []
    size = FILES[effort.big]
    label = f"{size // MIB} MiB"
    wrk = partial(requests_per_second, seconds=effort.seconds)
    download, upload = partial(download_once, size=size), partial(upload_once, size=size)

    def trial(name: str, unit: str, run: Run, app: str, path: str, warm_up: Callable[[], object]) -> Trial:
        contenders: Mapping[str, Callable[[], float]] = {
            OURS: partial(run, peers.product.http, f"/exapps/{app}{path}"),
            CHAIN: partial(run, peers.chain, path),
        }
        return single(Row(name, unit, Ratio(1.0, of=CHAIN)), effort.rounds, contenders, warm_up)

    small, big = "/1k", f"/{effort.big}"
    return [
        trial("tunnel, PUBLIC, 1 KiB, 64 connections", "req/s", wrk, TUNNELED, small, _cached(peers, small)),
        trial(f"tunnel, download of {label}", "MiB/s", download, TUNNELED, big, _cached(peers, big)),
        trial(f"tunnel, upload of {label}", "MiB/s", upload, TUNNELED_SERVICE, "/upload", lambda: None),
    ]


def _cached(peers: Peers, path: str) -> Callable[[], object]:
    """Reads a file of the ExApp once: whoever is first would else wait for the disk."""
    return partial(download_once, peers.upstream, path, FILES[path.rpartition("/")[2]])
