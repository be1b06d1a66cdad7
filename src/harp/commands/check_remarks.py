"""What `harp check` reports besides mistakes: settings that will stop working, are open, or have no effect."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from ipaddress import ip_address

from harp.net.certificate_dates import SOON, certificate_ends
from harp.settings import Address, Reading, Settings

USUAL_HTTPS = (Address("0.0.0.0", 8781),)  # noqa: S104 - the default
KUBERNETES, ENABLED = "HP_K8S_", "HP_K8S_ENABLED"


def _is_without_https(settings: Settings) -> bool:
    """Return whether the usual address is set without a certificate; other images do that, so it is not reported."""
    try:
        return settings.listen.https != USUAL_HTTPS and not (settings.certs / "cert.pem").exists()
    except OSError:
        return False  # nobody knows


# Variables that are given and have no effect, as other settings are: the text says of which.
IDLE: dict[str, tuple[Callable[[Settings], bool], str]] = {
    "HP_REAL_IP_HEADER": (lambda s: not s.proxies.trusted, "HP_TRUSTED_PROXY_IPS is not set: nobody may name clients"),
    "HP_BLACKLIST_WINDOW": (lambda s: s.bans.count == 0, "HP_BLACKLIST_COUNT=0 switches bans off"),
    "HP_BLACKLIST_STRIKES": (lambda s: s.bans.count == 0, "HP_BLACKLIST_COUNT=0 switches bans off"),
    "HP_BAN_ACTION": (lambda s: s.bans.count == 0, "HP_BLACKLIST_COUNT=0 switches bans off"),
    "HP_FRP_CERT_VALIDITY_DAYS": (lambda s: not s.tunnel.tls, "HP_FRP_DISABLE_TLS is set: there are no certificates"),
    "HP_DOCKER_CERT_PATH": (lambda s: bool(s.engines.host.path), "HP_DOCKER_HOST is a unix socket, without TLS"),
    "HP_EXAPP_BIND_MOUNTS_ALLOWED": (lambda s: s.engines.mounts_disabled, "HP_EXAPP_BIND_MOUNTS_DISABLED is set"),
    "HP_EXAPP_BIND_MOUNTS_DENIED": (lambda s: s.engines.mounts_disabled, "HP_EXAPP_BIND_MOUNTS_DISABLED is set"),
    "HP_EXAPP_BIND_MOUNTS_ENFORCE_ALL": (lambda s: s.engines.mounts_disabled, "HP_EXAPP_BIND_MOUNTS_DISABLED is set"),
    "HP_EXAPPS_HTTPS_ADDRESS": (_is_without_https, "there is no cert.pem in HP_CERTS_DIR"),
}


def remarks_of(reading: Reading, now: datetime | None = None) -> list[str]:
    """Return all remarks, each with its variable. Reads certificates."""
    settings = reading.settings
    given = {value.name for value in reading.values if value.given}
    idle = [
        f"{name}: has no effect, because {why}"
        for name, (is_idle, why) in IDLE.items()
        if name in given and is_idle(settings)
    ]
    cluster = sorted(name for name in given if name.startswith(KUBERNETES) and name != ENABLED)
    if cluster and not settings.kubernetes.enabled:
        idle.append(f"{', '.join(cluster)}: no effect, because {ENABLED} is not true")
    return [*_open(settings), *_certificates(settings, now or datetime.now(UTC)), *_traces(settings), *idle]


def _open(settings: Settings) -> list[str]:
    """Remark that everyone who reaches the admin listener can see what HaRP does."""
    return [
        f"HP_ADMIN_ADDRESS: {address} can be reached by other hosts; let only those reach it who may see what HaRP does"
        for address in settings.listen.admin
        if not address.path and not _is_loopback(address.host)
    ]


def _traces(settings: Settings) -> list[str]:
    missing = settings.traces and (find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None)
    return ["OTEL_EXPORTER_OTLP_ENDPOINT: OpenTelemetry is missing: pip install 'appapi-harp[otel]'"] if missing else []


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _certificates(settings: Settings, now: datetime) -> list[str]:
    found = []
    for certificate in certificate_ends(settings.certs, tunnel=settings.tunnel.tls):
        left = certificate.left(now)
        if left <= SOON:
            state = f"ends in {left.days} days" if left > timedelta(0) else f"has expired {-left.days} days ago"
            found.append(f"HP_CERTS_DIR: {certificate.file} {state}; {certificate.fix}")
    return found
