"""Where a connection can go."""

from __future__ import annotations

import ssl

from msgspec import Struct


class Tcp(Struct, frozen=True):
    """A host name or IP literal (no brackets) and a port."""

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


class TunnelPort(Struct, frozen=True):
    """A port number that names a stream inside a tunnel; nothing listens on it."""

    port: int


class Inner(Struct, frozen=True):
    """A service inside this process, by name."""

    name: str


Target = Tcp | Tls | Unix | TunnelPort | Inner
