"""Where a connection can go."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from msgspec import Struct

from harp.policy.exapp_target import ExAppTargets, Reach


class Tcp(Struct, frozen=True):
    """A host name or IP literal (no brackets) and a port, chosen by the admin."""

    host: str
    port: int


class Tls(Struct, frozen=True):
    """TLS to a host name or IP literal, which the certificate has to name, and a port."""

    host: str
    port: int
    context: ssl.SSLContext


class Unix(Struct, frozen=True):
    """A unix socket's path."""

    path: str


class ExAppAddress(Struct, frozen=True, cache_hash=True):
    """The host and port that an ExApp's record names: the addresses of the name are checked before they are used."""

    host: str
    port: int


class ExAppTunnel(Struct, frozen=True, cache_hash=True):
    """A stream to one ExApp, inside the tunnel that claims its port and has its name."""

    port: int
    app_id: str  # lower case
    loopback: bool = False  # before a tunnel has connected, 127.0.0.1 will do (HP_LOCAL_EXAPPS)


class EngineTunnel(Struct, frozen=True):
    """A stream to a Docker engine, inside the tunnel that claims its port. There is no other way to it."""

    port: int


class Inner(Struct, frozen=True):
    """A service inside this process, by name."""

    name: str


Target = Tcp | Tls | Unix | ExAppAddress | ExAppTunnel | EngineTunnel | Inner


def web_target(url: str) -> Tcp | Tls:
    """Return where the server of an http or https URL is."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        return Tls(host, parts.port or 443, ssl.create_default_context())
    return Tcp(host, parts.port or 80)


def exapp_target(app_id: str, host: str, port: int, targets: ExAppTargets) -> ExAppAddress | ExAppTunnel:
    """Return where an ExApp is reached: a loopback host means the tunnel of that port (A 5.1).

    What `targets` objects to has been refused before.
    """
    reach = targets.reach(host, port)
    if reach is Reach.ADDRESS:
        return ExAppAddress(host, port)
    return ExAppTunnel(port, app_id, loopback=reach is Reach.TUNNEL_OR_LOOPBACK)
