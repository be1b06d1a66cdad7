"""Environment -> Settings. Nothing else reads the environment; importing this module does nothing.

`load` is a table of sections: one line per variable with its default and its parser. The parsers are in
`parsers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from harp.errors import SettingsError
from harp.settings import parsers as v
from harp.settings.cluster import ClusterSettings, cluster
from harp.settings.instances import ALL, Shares, instances_of
from harp.settings.kubernetes import Kubernetes, kubernetes
from harp.settings.parsers import NEVER, Address, Network
from harp.settings.reader import Value, VariableReader
from harp.settings.traces import traces

__all__ = [
    "Address",
    "Bans",
    "ClusterSettings",
    "Engines",
    "Kubernetes",
    "Limits",
    "Listen",
    "Logs",
    "Network",
    "Nextcloud",
    "Proxies",
    "Reading",
    "Settings",
    "Timeouts",
    "TunnelSettings",
    "Value",
    "examine",
    "load",
]

INSTANCES = "HP_INSTANCES_FILE"

# Accepted and without effect: they steered parts of the existing system that we do not have (A 7.1).
OBSOLETE = (
    "HP_SPOA_ADDRESS",
    "HP_VERBOSE_START",
    "HP_WAIT_AGENT_HTTP",
    "HP_WAIT_SPOA",
    "HP_WAIT_FRP",
    "HP_WAIT_INTERVAL",
    "HP_WATCHDOG_ENABLED",
    "HP_WATCHDOG_INTERVAL",
    "HP_WATCHDOG_FAILS",
)


class Listen(Struct, frozen=True):
    """The listeners. Each may have several addresses."""

    http: tuple[Address, ...]  # HP_EXAPPS_ADDRESS
    https: tuple[Address, ...]  # HP_EXAPPS_HTTPS_ADDRESS, used when <certs>/cert.pem exists
    frp: tuple[Address, ...]  # HP_FRP_ADDRESS
    admin: tuple[Address, ...]  # HP_ADMIN_ADDRESS


class Limits(Struct, frozen=True):
    """The limits of one client."""

    head_size: int  # bytes, request line and headers together; HP_MAX_HEAD_SIZE
    headers: int  # HP_MAX_HEADERS
    connections: int  # HP_MAX_CONNECTIONS
    connections_per_address: int  # HP_MAX_CONNECTIONS_PER_ADDRESS; not applied to trusted, private and loopback peers
    tunnels: int  # FRP connections altogether; HP_MAX_TUNNELS
    tunnel_streams: int  # streams in one tunnel; HP_MAX_TUNNEL_STREAMS


class Timeouts(Struct, frozen=True):
    """Seconds. `float("inf")` is none."""

    connect: float  # HP_TIMEOUT_CONNECT: to an ExApp or engine
    head: float  # HP_TIMEOUT_HEAD: a client sending its request head
    client: float  # HP_TIMEOUT_CLIENT: a client silent in the middle of its body, or not reading the answer
    keepalive: float  # HP_TIMEOUT_KEEPALIVE: an idle client connection
    response: float  # HP_TIMEOUT_RESPONSE: until the ExApp's response head; default HP_TIMEOUT_SERVER + 60 s
    server: float  # HP_TIMEOUT_SERVER: silence inside a response body
    tunnel: float  # HP_TIMEOUT_TUNNEL: silence on an upgraded connection
    half_closed: float  # HP_TIMEOUT_HALF_CLOSED: a client that has closed its sending side
    upstream_idle: float  # HP_TIMEOUT_UPSTREAM_IDLE: an unused pooled connection to an ExApp
    drain: float  # HP_TIMEOUT_DRAIN: requests that run when we are asked to stop
    upgrade: float  # HP_TIMEOUT_UPGRADE: requests that run when a new version has taken over


class Bans(Struct, frozen=True):
    """An address is banned after `count` strikes within `window`."""

    count: int  # HP_BLACKLIST_COUNT; 0 = never
    window: float  # seconds, HP_BLACKLIST_WINDOW; 0 = strikes age at once, so never
    strikes: str  # HP_BLACKLIST_STRIKES: "auth" or "all"
    action: str  # HP_BAN_ACTION: "reply" or "drop"


class Proxies(Struct, frozen=True):
    """Who may report the client's address, and in which header."""

    trusted: tuple[Network, ...]  # HP_TRUSTED_PROXY_IPS and HP_TRUSTED_PROXY_IPS_FILE
    header: str  # lower case; HP_REAL_IP_HEADER, default x-forwarded-for


class Nextcloud(Struct, frozen=True):
    """The Nextcloud that is served, and how long its answers are valid."""

    url: str  # NC_INSTANCE_URL without trailing "/" and "/index.php"
    session_lifetime: float  # seconds, HP_SESSION_LIFETIME
    record_lifetime: float  # seconds until a record is refreshed in the background; HP_RECORD_LIFETIME
    connect_timeout: float  # seconds
    timeout: float  # seconds, one call in all


class TunnelSettings(Struct, frozen=True):
    """The FRP server."""

    tls: bool  # not HP_FRP_DISABLE_TLS
    validity_days: int  # HP_FRP_CERT_VALIDITY_DAYS
    listen: bool  # HP_TUNNEL_LISTEN: open 127.0.0.1:<port> for each claimed port, for debugging
    hold: float  # seconds a request waits for a tunnel to come back; HP_TUNNEL_HOLD
    window: int  # bytes that one stream may have on its way to us; HP_TUNNEL_WINDOW, at least 262144
    memory: int  # bytes that all streams may have beyond 262144 each; HP_TUNNEL_MEMORY
    claims: str  # HP_TUNNEL_CLAIMS: "warn" or "strict"


class Engines(Struct, frozen=True):
    """Docker engines and what ExApp containers may mount (A 10)."""

    ports: frozenset[int]  # HP_DOCKER_ENGINE_PORTS
    host: Address  # HP_DOCKER_HOST: the engine of this host, port 24000
    certificates: Path | None  # HP_DOCKER_CERT_PATH: ca.pem, cert.pem, key.pem for TLS to `host`; None = no TLS
    instance: str  # HP_INSTANCE_ID: the owner in labels of containers; "" = derived from the URL of Nextcloud
    registries: Path | None  # HP_REGISTRIES_FILE: logins and mirrors of image registries
    keys: str  # HP_EXAPP_KEYS: "shared" or "derived"
    mounts_disabled: bool
    mounts_allowed: tuple[str, ...] | None  # None = all
    mounts_denied: tuple[str, ...] | None  # None = the default list
    mounts_enforce_all: bool


class Logs(Struct, frozen=True):
    level: str  # "debug", "info", "warning", "error"; HP_LOG_LEVEL
    format: str  # "text" or "json"; HP_LOG_FORMAT
    access: str = "off"  # "off", "errors" or "all"; HP_ACCESS_LOG


class Settings(Struct, frozen=True):
    """Everything an admin can choose."""

    shared_key: str  # HP_SHARED_KEY or HP_SHARED_KEY_FILE
    nextcloud: Nextcloud
    listen: Listen
    certs: Path  # HP_CERTS_DIR, default /certs: cert.pem for HTTPS, frp/ for the tunnel
    limits: Limits
    timeouts: Timeouts
    bans: Bans
    proxies: Proxies
    tunnel: TunnelSettings
    engines: Engines
    kubernetes: Kubernetes
    logs: Logs
    gateway_url: str  # HP_GATEWAY_URL: Nextcloud, if HaRP is in front of all of it; "" = something else is
    public_url: str  # HP_PUBLIC_URL: where browsers and AppAPI find Nextcloud; only `harp doctor` goes there
    rewrite_location: bool  # HP_REWRITE_LOCATION
    workers: int  # HP_WORKERS: processes; 0 = as many as there are processors
    cluster: ClusterSettings | None  # HP_CLUSTER_URL and its kin: with others elsewhere one HaRP; None = alone
    local_exapps: tuple[range, ...]  # HP_LOCAL_EXAPPS: ports of loopback on which ExApps installed by hand may listen
    traces: str = ""  # OTEL_EXPORTER_OTLP_ENDPOINT and its kin: where traces are sent; "" = nowhere
    admin_password: str = ""  # HP_ADMIN_PASSWORD_FILE; "" = the shared key
    instance: str = ""  # the name in HP_INSTANCES_FILE of whose settings these are; "" = there is no such file
    hosts: tuple[str, ...] = ()  # under which browsers call that Nextcloud, lower case, perhaps with a port; "*" = any
    shares: Shares = ALL  # what it may take of the limits
    processes: int = 1  # that share these limits: `settings.sharing`
    instances: tuple[Settings, ...] = ()  # of HP_INSTANCES_FILE, each complete
    warnings: tuple[str, ...] = ()  # what was tolerated, one line each, for the log
    values: tuple[Value, ...] = ()  # every variable as it is in effect

    def __repr__(self) -> str:
        return f"Settings({self.nextcloud.url!r})"

    @property
    def secrets(self) -> list[str]:
        """What no log may show."""
        store = [] if self.cluster is None else self.cluster.store.secrets
        return [self.kubernetes.token, self.shared_key, *store, *(one.shared_key for one in self.instances)]


class Reading(Struct, frozen=True):
    """The content of an environment. With problems, do not use the settings: faulty variables have their defaults."""

    settings: Settings
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    values: tuple[Value, ...]  # every variable as it is in effect


def load(env: Mapping[str, str]) -> Settings:
    """Check every variable, then raise SettingsError with all problems, one per line."""
    reading = examine(env)
    if reading.problems:
        raise SettingsError(list(reading.problems))
    return reading.settings


def examine(env: Mapping[str, str]) -> Reading:
    """Check every variable, and return settings, problems and warnings."""
    r = VariableReader(env)
    shared_key, nextcloud = _shared_key(r), _nextcloud(r)
    settings = Settings(
        shared_key=shared_key,
        nextcloud=nextcloud,
        gateway_url=r.optional("HP_GATEWAY_URL", v.nextcloud_url, "none: HaRP serves /exapps/ alone") or "",
        public_url=r.optional("HP_PUBLIC_URL", v.nextcloud_url, "NC_INSTANCE_URL") or nextcloud.url,
        listen=(listen := _listen(r)),
        certs=r.read("HP_CERTS_DIR", "/certs", v.path),
        limits=_limits(r),
        timeouts=_timeouts(r),
        bans=_bans(r),
        proxies=_proxies(r),
        tunnel=_tunnel(r),
        engines=_engines(r),
        kubernetes=kubernetes(r),
        logs=_logs(r),
        rewrite_location=r.read("HP_REWRITE_LOCATION", "false", v.boolean),
        workers=r.read("HP_WORKERS", "1", v.workers),
        cluster=cluster(r, listen.frp),
        local_exapps=r.read("HP_LOCAL_EXAPPS", "1024-22999,24100-65535", v.local_ports),
        traces=traces(r),
        admin_password=r.optional("HP_ADMIN_PASSWORD_FILE", v.shared_key_file, "the shared key") or "",
    )
    settings = _with_instances(r, settings)
    if settings.cluster is not None and settings.workers != 1:
        r.problem("HP_WORKERS", "cannot be used with HP_CLUSTER_URL; remove it and start more replicas instead")
    r.warn_unknown("HP_", OBSOLETE)
    warnings = tuple(r.warnings)
    return Reading(
        settings=replace(settings, warnings=warnings, values=tuple(r.values)),
        problems=tuple(r.problems),
        warnings=warnings,
        values=tuple(r.values),
    )


def _with_instances(r: VariableReader, settings: Settings) -> Settings:
    """Add the Nextclouds of HP_INSTANCES_FILE: what one has of its own cannot be a variable as well."""
    path = r.optional(INSTANCES, v.path, "one Nextcloud, by the variables")
    if path is None:
        return settings
    own = ("HP_SHARED_KEY", "HP_SHARED_KEY_FILE", "NC_INSTANCE_URL", "HP_PUBLIC_URL", "HP_GATEWAY_URL")
    for name in (*own, "HP_INSTANCE_ID"):
        if r.given(name):
            r.problem(name, f"every Nextcloud has its own in {INSTANCES}; remove the variable")
    if settings.tunnel.listen:
        text = f"cannot be used with {INSTANCES}: a port would be that of several Nextclouds; remove one of the two"
        r.problem("HP_TUNNEL_LISTEN", text)
    instances, problems, warnings = instances_of(path, settings)
    r.problems += problems
    r.warnings += warnings
    return replace(settings, instances=instances)


def _shared_key(r: VariableReader) -> str:
    key = r.secret("HP_SHARED_KEY", v.shared_key)
    from_file = r.optional("HP_SHARED_KEY_FILE", v.shared_key_file, "not set")
    given = [name for name in ("HP_SHARED_KEY", "HP_SHARED_KEY_FILE") if r.given(name)]
    if not given and not r.given(INSTANCES):
        r.problem("HP_SHARED_KEY", "is not set; set it (or HP_SHARED_KEY_FILE) to the deploy daemon's key in Nextcloud")
    if len(given) > 1:
        r.problem("HP_SHARED_KEY", "HP_SHARED_KEY_FILE is set as well; remove one of the two")
    return key or from_file or ""


def _nextcloud(r: VariableReader) -> Nextcloud:
    url = r.optional("NC_INSTANCE_URL", v.nextcloud_url, "not set")
    if not r.given("NC_INSTANCE_URL") and not r.given(INSTANCES):
        r.problem("NC_INSTANCE_URL", "is not set; write the URL of your Nextcloud, such as https://cloud.example.com")
    return Nextcloud(
        url=url or "",
        session_lifetime=r.read("HP_SESSION_LIFETIME", "3", v.duration("s", zero=0.0, most=10)),
        record_lifetime=r.read("HP_RECORD_LIFETIME", "60", v.duration("s")),
        connect_timeout=5.0,  # A 5
        timeout=25.0,  # A 5
    )


def _listen(r: VariableReader) -> Listen:
    listen = Listen(
        http=r.read("HP_EXAPPS_ADDRESS", "0.0.0.0:8780", v.addresses),
        https=r.read("HP_EXAPPS_HTTPS_ADDRESS", "0.0.0.0:8781", v.addresses),
        frp=r.read("HP_FRP_ADDRESS", "0.0.0.0:8782", v.addresses),
        admin=r.read("HP_ADMIN_ADDRESS", "127.0.0.1:8200", v.addresses),
    )
    # HTTPS is left out: without cert.pem its address is not used, and then may well be another listener's.
    named = (("HP_EXAPPS_ADDRESS", listen.http), ("HP_FRP_ADDRESS", listen.frp), ("HP_ADMIN_ADDRESS", listen.admin))
    for (name, ours), (other_name, others) in combinations(named, 2):
        for other in others:
            if any(v.clash(one, other) for one in ours):
                r.problem(other_name, f"{other} is taken by {name} already; choose another port")
    return listen


def _limits(r: VariableReader) -> Limits:
    many = v.number(1, 1_000_000)
    return Limits(
        head_size=r.read("HP_MAX_HEAD_SIZE", "32768", v.size(1024, 1 << 20)),
        headers=r.read("HP_MAX_HEADERS", "128", v.number(16, 10_000)),
        connections=r.read("HP_MAX_CONNECTIONS", "8192", many),
        connections_per_address=r.read("HP_MAX_CONNECTIONS_PER_ADDRESS", "1024", many),
        tunnels=r.read("HP_MAX_TUNNELS", "1100", many),
        tunnel_streams=r.read("HP_MAX_TUNNEL_STREAMS", "4000", many),
    )


def _timeouts(r: VariableReader) -> Timeouts:
    limit, endless = v.duration(), v.duration(zero=NEVER)
    server = r.read("HP_TIMEOUT_SERVER", "1800s", endless)
    response = r.optional("HP_TIMEOUT_RESPONSE", endless, "HP_TIMEOUT_SERVER and 60s")
    tunnel = r.optional("HP_TIMEOUT_TUNNEL", endless, "HP_TIMEOUT_SERVER")
    return Timeouts(
        connect=r.read("HP_TIMEOUT_CONNECT", "30s", endless),
        head=r.read("HP_TIMEOUT_HEAD", "30s", limit),
        client=r.read("HP_TIMEOUT_CLIENT", "30s", endless),
        keepalive=r.read("HP_TIMEOUT_KEEPALIVE", "75s", limit),  # nginx keeps its side for 60 s: we must not be first
        response=server + 60 if response is None else response,
        server=server,
        tunnel=server if tunnel is None else tunnel,
        half_closed=r.read("HP_TIMEOUT_HALF_CLOSED", "30s", limit),
        upstream_idle=r.read("HP_TIMEOUT_UPSTREAM_IDLE", "4s", limit),  # uvicorn closes after 5 s
        drain=r.read("HP_TIMEOUT_DRAIN", "8s", v.duration(zero=0.0)),  # docker stop kills after 10 s
        upgrade=r.read("HP_TIMEOUT_UPGRADE", "60s", v.duration(zero=0.0)),
    )


def _bans(r: VariableReader) -> Bans:
    return Bans(
        count=r.read("HP_BLACKLIST_COUNT", "10", v.number(0, 1_000_000)),
        window=r.read("HP_BLACKLIST_WINDOW", "300", v.duration("s", zero=0.0)),
        strikes=r.read("HP_BLACKLIST_STRIKES", "auth", v.choice("auth", "all")),
        action=r.read("HP_BAN_ACTION", "reply", v.choice("reply", "drop")),
    )


def _proxies(r: VariableReader) -> Proxies:
    return Proxies(
        trusted=r.read("HP_TRUSTED_PROXY_IPS", "", v.networks)
        + (r.optional("HP_TRUSTED_PROXY_IPS_FILE", v.networks_file, "none") or ()),
        header=r.read("HP_REAL_IP_HEADER", "x-forwarded-for", v.header_name),
    )


def _tunnel(r: VariableReader) -> TunnelSettings:
    return TunnelSettings(
        tls=not r.read("HP_FRP_DISABLE_TLS", "false", v.exactly("true")),
        validity_days=r.read("HP_FRP_CERT_VALIDITY_DAYS", "5000", v.number(1, 1_000_000)),
        listen=r.read("HP_TUNNEL_LISTEN", "false", v.boolean),
        hold=r.read("HP_TUNNEL_HOLD", "4s", v.duration(zero=0.0, most=300)),
        window=r.read("HP_TUNNEL_WINDOW", "16m", v.size(262144, 64 << 20)),
        memory=r.read("HP_TUNNEL_MEMORY", "64m", v.size(0, 4 << 30)),
        claims=r.read("HP_TUNNEL_CLAIMS", "warn", v.choice("warn", "strict")),
    )


def _engines(r: VariableReader) -> Engines:
    allowed = v.mounts(suffix=False)
    return Engines(
        ports=r.read("HP_DOCKER_ENGINE_PORTS", "24000-24099", v.ports),
        host=r.read("HP_DOCKER_HOST", "unix:///var/run/docker.sock", v.engine_host),
        certificates=r.optional("HP_DOCKER_CERT_PATH", v.path, "no TLS"),
        instance=r.optional("HP_INSTANCE_ID", v.label, "derived from NC_INSTANCE_URL") or "",
        registries=r.optional("HP_REGISTRIES_FILE", v.path, "no logins and mirrors"),
        keys=r.read("HP_EXAPP_KEYS", "shared", v.choice("shared", "derived")),
        mounts_disabled=r.read("HP_EXAPP_BIND_MOUNTS_DISABLED", "false", v.boolean),
        mounts_allowed=r.optional("HP_EXAPP_BIND_MOUNTS_ALLOWED", allowed, "all"),
        mounts_denied=r.optional(
            "HP_EXAPP_BIND_MOUNTS_DENIED", v.mounts(suffix=True), "the default list", empty_counts=True
        ),
        mounts_enforce_all=r.read("HP_EXAPP_BIND_MOUNTS_ENFORCE_ALL", "false", v.boolean),
    )


def _logs(r: VariableReader) -> Logs:
    level = r.read("HP_LOG_LEVEL", "warning", v.log_level)
    usual = "all" if level in ("debug", "info") else "off"
    return Logs(
        level=level,
        access=r.optional("HP_ACCESS_LOG", v.choice("off", "errors", "all"), f"{usual}, by HP_LOG_LEVEL") or usual,
        format=r.read("HP_LOG_FORMAT", "text", v.choice("text", "json")),
    )
