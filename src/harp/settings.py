"""Environment -> Settings. Nothing else reads the environment; importing this module does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: host and port, or a unix socket's path (then host is "" and port 0)."""

    host: str
    port: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class Listen:
    """The listeners. Each may have several addresses."""

    http: tuple[Address, ...]  # HP_EXAPPS_ADDRESS
    https: tuple[Address, ...]  # HP_EXAPPS_HTTPS_ADDRESS, used when <certs>/cert.pem exists
    frp: tuple[Address, ...]  # HP_FRP_ADDRESS
    admin: tuple[Address, ...]  # HP_ADMIN_ADDRESS


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take."""

    head_size: int  # bytes, request line and headers together; HP_MAX_HEAD_SIZE
    headers: int  # HP_MAX_HEADERS
    connections: int  # HP_MAX_CONNECTIONS
    connections_per_address: int  # HP_MAX_CONNECTIONS_PER_ADDRESS; not applied to trusted, private and loopback peers
    tunnels: int  # FRP connections altogether; HP_MAX_TUNNELS
    tunnel_streams: int  # streams in one tunnel; HP_MAX_TUNNEL_STREAMS


@dataclass(frozen=True, slots=True)
class Timeouts:
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
    drain: float  # HP_TIMEOUT_DRAIN: requests that run when we are told to stop


@dataclass(frozen=True, slots=True)
class Bans:
    """An address is turned away after `count` strikes within `window`."""

    count: int  # HP_BLACKLIST_COUNT; 0 = never
    window: float  # seconds, HP_BLACKLIST_WINDOW
    strikes: str  # HP_BLACKLIST_STRIKES: "auth" or "all"
    action: str  # HP_BAN_ACTION: "reply" or "drop"


@dataclass(frozen=True, slots=True)
class Proxies:
    """Who may tell us the client's address, and in which header."""

    trusted: tuple[Network, ...]  # HP_TRUSTED_PROXY_IPS
    header: str  # lower case; HP_REAL_IP_HEADER, default x-forwarded-for


@dataclass(frozen=True, slots=True)
class Nextcloud:
    """The Nextcloud that we serve, and how long to believe it."""

    url: str  # NC_INSTANCE_URL without trailing "/" and "/index.php"
    session_lifetime: float  # seconds, HP_SESSION_LIFETIME
    record_lifetime: float  # seconds until a record is refreshed in the background; HP_RECORD_LIFETIME
    connect_timeout: float  # seconds
    timeout: float  # seconds, one call in all


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The FRP server."""

    tls: bool  # not HP_FRP_DISABLE_TLS
    validity_days: int  # HP_FRP_CERT_VALIDITY_DAYS
    listen: bool  # HP_TUNNEL_LISTEN: open 127.0.0.1:<port> for each claimed port, for debugging
    hold: float  # seconds a request waits for a tunnel to come back; HP_TUNNEL_HOLD
    window: int  # bytes a stream may send before we have read them; HP_TUNNEL_WINDOW, at least 262144
    claims: str  # HP_TUNNEL_CLAIMS: "warn" or "strict"


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """HP_K8S_*; parsed, not used yet."""

    enabled: bool
    namespace: str
    api_server: str
    token: str = field(repr=False)
    token_file: Path
    ca_file: Path
    verify: bool
    storage_class: str
    storage_size: str
    host_aliases: tuple[tuple[str, tuple[str, ...]], ...]  # (ip, names)


@dataclass(frozen=True, slots=True)
class Engines:
    """Docker engines and what ExApp containers may mount (A 10)."""

    ports: frozenset[int]  # HP_DOCKER_ENGINE_PORTS
    keys: str  # HP_EXAPP_KEYS: "shared" or "derived"
    mounts_disabled: bool
    mounts_allowed: tuple[str, ...] | None  # None = all
    mounts_denied: tuple[str, ...] | None  # None = the default list
    mounts_enforce_all: bool


@dataclass(frozen=True, slots=True)
class Logs:
    level: str  # "debug", "info", "warning", "error"; HP_LOG_LEVEL
    format: str  # "text" or "json"; HP_LOG_FORMAT


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an admin can choose."""

    shared_key: str = field(repr=False)  # HP_SHARED_KEY or HP_SHARED_KEY_FILE
    nextcloud: Nextcloud
    listen: Listen
    certs: Path  # HP_CERTS_DIR, default /certs: cert.pem for HTTPS, frp/ for the tunnel
    limits: Limits
    timeouts: Timeouts
    bans: Bans
    proxies: Proxies
    tunnel: Tunnel
    engines: Engines
    kubernetes: Kubernetes
    logs: Logs
    rewrite_location: bool  # HP_REWRITE_LOCATION
    warnings: tuple[str, ...] = ()  # what was tolerated, one line each, for the log


def load(env: Mapping[str, str]) -> Settings:
    """Check every variable, then raise SettingsError with all problems, one per line."""
    raise NotImplementedError
