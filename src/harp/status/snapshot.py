"""The one source of facts about a running HaRP: terminal, API and metrics show its contents.

Everything is a value made at the moment somebody asks; times are Unix seconds, durations seconds, sizes bytes. There
are no secrets in it.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from harp.engines.facts import ClusterStatus
from harp.status.conditions import Condition
from harp.status.engines import EngineLine

Headers = tuple[tuple[str, str], ...]


class OfInstance(Protocol):
    """A line that is about one of several Nextclouds."""

    @property
    def instance(self) -> str:
        """Its name, "" where there is only one."""


def key_of(app: str, instance: str) -> str:
    """Return what distinguishes an ExApp from those of other Nextclouds."""
    return f"{instance}/{app}" if instance else app


class DurationsLine(Struct, frozen=True):
    """How long something took."""

    seconds: float  # all together
    buckets: tuple[int, ...]


class TrafficLine(Struct, frozen=True):
    """Requests that are over, since the start."""

    statuses: dict[str, int]  # by class: "none" (no answer), "1xx" to "5xx"
    received: int
    sent: int
    seconds: float  # all requests together, without upgraded streams
    buckets: tuple[int, ...]  # how many took up to each of `frontend.traffic.BOUNDS`, and longer than all
    first_bytes: DurationsLine | None = None  # the same, until their answers began
    waits: dict[str, DurationsLine] = {}  # of those that had to wait for "nextcloud", a "tunnel", or to "connect"


class RouteLine(Struct, frozen=True):
    """A route of an ExApp."""

    url: str
    level: str  # "PUBLIC", "USER", "ADMIN"


class AppLine(Struct, frozen=True, omit_defaults=True):
    """An ExApp that this HaRP knows: Nextcloud or AppAPI has reported it since the start."""

    app: str
    version: str
    host: str
    port: int
    tunnel: str  # "connected", "not connected"; "" = it is reached without one
    routes: tuple[RouteLine, ...]
    traffic: TrafficLine
    answered: float | None = None  # when it last answered a request, and not with a 5xx; None = never since the start
    instance: str = ""  # the Nextcloud it is one of, where there are several

    @property
    def key(self) -> str:
        """Its place below the status page's /apps/, and its name in the history."""
        return key_of(self.app, self.instance)


class TunnelLine(Struct, frozen=True, omit_defaults=True):
    """A tunnel client that is connected."""

    names: tuple[str, ...]  # that it has claimed
    ports: tuple[int, ...]
    address: str
    hostname: str  # in the client's own words, as `client` and `system`
    client: str
    system: str
    since: float
    round_trip: float | None  # None = not measured yet
    streams: int  # open now, those that wait for requests included
    mux: bool
    wire: int
    received: int = 0  # bytes; 0 without multiplexing, where nobody counts them
    sent: int = 0
    instance: str = ""  # where there are several Nextclouds


class BanLine(Struct, frozen=True, omit_defaults=True):
    """An address that is banned."""

    address: str
    seconds: float  # until it is served again
    reason: str  # of its last strike
    instance: str = ""  # where there are several Nextclouds: the one that has banned it; "" = HaRP, for wrong keys


class CertificateLine(Struct, frozen=True):
    """A certificate in use."""

    file: str
    end: float


class Process(Struct, frozen=True):
    """The process itself."""

    version: str
    started: float
    cpu: float  # seconds of the processor, used since the start
    memory: int  # resident
    descriptors: int
    most_descriptors: int
    connections: int  # of clients
    requests: int  # since the start
    loop_lag: float  # the longest that the event loop was late in the last minute
    log_level: str
    access_log: str
    number: int = 0  # of the process, for the system


class NextcloudLine(Struct, frozen=True):
    """Nextcloud, as the last calls have found it."""

    url: str
    condition: Condition | None  # None = not asked yet
    calls: int  # since the start
    failures: int


class BanTotals(Struct, frozen=True):
    """Strikes and bans."""

    strikes: int  # since the start
    begun: int  # since the start
    now: int  # addresses that are banned


class InstanceLine(Struct, frozen=True):
    """One of several Nextclouds."""

    instance: str  # its name
    hosts: tuple[str, ...]
    nextcloud: NextcloudLine
    connections: int  # of clients, whose last request was to it
    running: int  # requests under way
    waiting: int  # requests that wait for their turn
    control: TrafficLine  # calls of its AppAPI to HaRP itself
    others: TrafficLine  # requests that were for none of its ExApps
    refusals: dict[int, int]  # answers that HaRP made itself, by status
    tunnels_lost: int  # since the start
    ban_totals: BanTotals


WORKER, REPLICA = "worker", "replica"


class MemberLine(Struct, frozen=True):
    """One of several processes that are one HaRP (HP_WORKERS, HP_CLUSTER_URL)."""

    name: str
    leads: bool  # has the admin listener that was asked
    linked: bool  # with the one that was asked; what follows is what was known last
    process: int  # its id
    started: float
    cpu: float
    memory: int
    connections: int
    requests: int
    tunnels: int
    loop_lag: float
    rate: float = 0.0  # requests per second, since it was asked the last time
    address: str = ""  # where it is, if it may be on another host
    kind: str = WORKER  # or "replica"
    trouble: str = ""  # why a replica is not linked, that it does not answer, or what is wrong with its list of them


class Snapshot(Struct, frozen=True):
    """Everything."""

    process: Process
    listeners: dict[str, Condition]
    nextcloud: NextcloudLine
    apps: tuple[AppLine, ...]
    control: TrafficLine  # calls of AppAPI to HaRP itself
    others: TrafficLine  # requests that were for no ExApp we know
    refusals: dict[int, int]  # answers that HaRP made itself, by status
    tunnels: tuple[TunnelLine, ...]
    tunnels_lost: int  # since the start
    engines: tuple[EngineLine, ...]
    bans: tuple[BanLine, ...]
    ban_totals: BanTotals
    certificates: tuple[CertificateLine, ...]
    cluster: ClusterStatus | None = None  # None = no Kubernetes
    caches: dict[str, int] = {}  # what is remembered, by kind: "records", "sessions", "decisions"
    instances: tuple[InstanceLine, ...] = ()  # where there are several Nextclouds; what is above counts all of them
    members: tuple[MemberLine, ...] = ()  # () = there is one process
    strangers: InstanceLine | None = None  # the same of requests and wrong keys that were for none of them


def part_of(snapshot: Snapshot, line: InstanceLine) -> Snapshot:
    """Return what a HaRP for this Nextcloud alone would know."""
    return replace(
        snapshot,
        nextcloud=line.nextcloud,
        apps=tuple(app for app in snapshot.apps if app.instance == line.instance),
        control=line.control,
        others=line.others,
        refusals=line.refusals,
        tunnels=tuple(tunnel for tunnel in snapshot.tunnels if tunnel.instance == line.instance),
        tunnels_lost=line.tunnels_lost,
        engines=tuple(engine for engine in snapshot.engines if engine.instance == line.instance),
        bans=tuple(ban for ban in snapshot.bans if ban.instance == line.instance),
        ban_totals=line.ban_totals,
        instances=(),
        strangers=None,
    )


class SettingLine(Struct, frozen=True):
    """A variable as it is in effect."""

    name: str
    text: str  # "set" for a secret
    given: bool  # False = this is the default


class RunningLine(Struct, frozen=True, omit_defaults=True):
    """A request that is not over yet."""

    request_id: str
    method: str
    path: str
    app: str
    user: str
    address: str
    seconds: float  # since it came
    status: int  # 0 = no answer yet
    sent: int
    instance: str = ""  # where there are several Nextclouds


class RequestLine(Struct, frozen=True, omit_defaults=True):
    """One request that is over."""

    number: int  # grows with each; there may be gaps
    ended: float
    request_id: str
    method: str
    path: str
    query: str  # names of parameters, without values
    app: str  # as the URL spells it; "" = none
    user: str
    address: str
    peer: str
    verdict: str  # as in the access log
    rule: str  # the route that has decided, with its level; "" where none has
    status: int  # 0 = the connection ended before an answer
    received: int
    sent: int
    seconds: float
    reason: str
    refused: bool  # HaRP has answered itself
    first_byte: float | None  # seconds until the answer began
    waits: dict[str, float]  # seconds by what was waited for: "nextcloud", "tunnel", "connect"
    request: Headers  # header lines, without secrets
    answer: Headers  # the same; () = it came before somebody looked, or is HaRP's own
    instance: str = ""  # where there are several Nextclouds


class RequestLines(Struct, frozen=True):
    """Requests that people may want to look at, newest first."""

    recent: tuple[RequestLine, ...]  # since somebody began to look
    failures: tuple[RequestLine, ...]  # refused by HaRP, or 5xx
    running: tuple[RunningLine, ...]  # the longest first
