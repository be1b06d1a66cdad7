"""A HaRP that knows one of everything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from msgspec.structs import replace

from harp.engines.facts import ClusterExApp, ClusterStatus
from harp.frontend.traffic import BOUNDS, CLASSES
from harp.status.conditions import Condition
from harp.status.engines import EngineLine
from harp.status.snapshot import (
    AppLine,
    BanLine,
    BanTotals,
    CertificateLine,
    MemberLine,
    NextcloudLine,
    Process,
    RequestLines,
    RouteLine,
    Snapshot,
    TrafficLine,
    TunnelLine,
)

NONE = TrafficLine(dict.fromkeys(CLASSES, 0), 0, 0, 0.0, (0,) * (len(BOUNDS) + 1))
SOME = TrafficLine({**NONE.statuses, "2xx": 3, "5xx": 1}, 10, 2_000_000, 1.5, (3, *(0,) * (len(BOUNDS) - 1), 1))
HELLO = AppLine("hello", "1.2.3", "127.0.0.1", 23000, "connected", (RouteLine("^/public", "PUBLIC"),), SOME)
DIRECT = AppLine("direct", "1.0", "direct-host", 8080, "", (), NONE)
TUNNEL = TunnelLine(("hello",), (23000,), "192.0.2.1", "box", "0.61.1", "linux/amd64", 1.7e9, 0.0123, 4, True, 1)
ENGINE = EngineLine(24000, "28.0", "1.24 to 1.48", False, 1.7e9, "", None)
PROCESS = Process("1", 1.7e9, 12.5, 35_000_000, 40, 20_000, 7, 4, 0.002, "warning", "off")

CLUSTER = ClusterStatus(
    "https://10.0.0.1:6443",
    "nextcloud-exapps",
    "",
    {"logs": "get pods/log: for the last lines of an ExApp that fails to start"},
    (ClusterExApp("nc-app-hello", "hello", 1, 1, "10.96.0.5:23000", ""),),
)


class FakeFacts:
    """Answers as `harp.facts.HarpFacts` does, and notes what is changed."""

    def __init__(self) -> None:
        addresses = ("8.8.4.4", "2001:db8::/64 (hello)")
        self.banned = {address: BanLine(address, 100.0, "wrong key") for address in addresses}
        self.changes: list[str] = []
        self.in_effect = PROCESS
        self.known: list[AppLine] = [HELLO, DIRECT]
        self.known_members: list[MemberLine] = []

    def listeners(self) -> dict[str, Condition]:
        return {"http": Condition(True, "port 8780")}

    def nextcloud(self) -> Condition | None:
        return Condition(True, "answers")

    def draining(self) -> bool:
        return False

    def apps(self) -> Sequence[AppLine]:
        return self.known

    def tunnels(self) -> Sequence[TunnelLine]:
        return [TUNNEL]

    def engines(self) -> Sequence[EngineLine]:
        return [ENGINE]

    def cluster(self) -> ClusterStatus | None:
        return CLUSTER

    def bans(self) -> Sequence[BanLine]:
        return list(self.banned.values())

    def members(self) -> Sequence[MemberLine]:
        return self.known_members

    def certificates(self) -> Sequence[CertificateLine]:
        return [CertificateLine("/certs/cert.pem", 1.9e9)]

    def process(self) -> Process:
        return self.in_effect

    def snapshot(self) -> Snapshot:
        return Snapshot(
            process=self.process(),
            listeners=self.listeners(),
            nextcloud=NextcloudLine("http://cloud", self.nextcloud(), 20, 2),
            apps=tuple(self.apps()),
            control=NONE,
            others=NONE,
            refusals={403: 5, 503: 1},
            tunnels=tuple(self.tunnels()),
            tunnels_lost=1,
            engines=tuple(self.engines()),
            bans=tuple(self.bans()),
            ban_totals=BanTotals(30, 3, len(self.banned)),
            certificates=tuple(self.certificates()),
            cluster=self.cluster(),
            members=tuple(self.members()),
        )

    def requests(self, app: str) -> RequestLines:
        return RequestLines((), (), ())

    async def follow(self, app: str) -> AsyncIterator[bytes]:
        yield b"data: {}\n\n"

    def end_engine(self, name: str, instance: str = "") -> int:
        self.changes.append(f"{instance} {name}" if instance else name)
        return int(name == "gpu1")

    def lift(self, address: str, instance: str = "") -> bool:
        self.changes.append(f"{instance} {address}" if instance else address)
        return self.banned.pop(address, None) is not None

    def change_logs(self, log_level: str | None, access_log: str | None) -> None:
        wishes: dict[str, Any] = {"log_level": log_level, "access_log": access_log}
        wishes = {name: wish for name, wish in wishes.items() if wish is not None}
        self.changes.append(str(wishes))
        self.in_effect = replace(self.in_effect, **wishes)
