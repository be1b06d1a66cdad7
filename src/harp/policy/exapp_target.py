"""Where an ExApp may be reached, and where never (A 5.1, A 6.10, A 9.2).

A record's host and port come from Nextcloud, from a push or from the headers of a signed request, so anyone who has the
shared key can choose them. None of them may lead to an engine, to a listener of ours, or to a program that happens to
listen on loopback.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from msgspec import Struct

from harp.policy.ports import ENGINE_PORTS, EXAPP_PORTS, LOCAL_ENGINE_PORT
from harp.settings import Settings

LOCAL_NAMES = frozenset(("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"))
_NUMBERS = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}\.?").fullmatch


class Reach(Enum):
    """The way to an ExApp."""

    TUNNEL = auto()  # the tunnel of its port
    TUNNEL_OR_LOOPBACK = auto()  # the same; before there was one, 127.0.0.1
    ADDRESS = auto()  # its host and port, as they are


class ExAppTargets(Struct, frozen=True):
    """What an admin's settings say about the targets of ExApps."""

    engine_ports: frozenset[int] = frozenset()
    engine_tcp_port: int = 0  # of the engine of this host, 0 = it has a unix socket
    listeners: frozenset[int] = frozenset()  # our own TCP ports
    local: tuple[range, ...] = ()  # HP_LOCAL_EXAPPS

    def reach(self, host: str, port: int) -> Reach:
        """Return the way to a target without objections."""
        if not is_loopback(host) or port not in EXAPP_PORTS:
            return Reach.ADDRESS
        return Reach.TUNNEL_OR_LOOPBACK if self._is_local(port) else Reach.TUNNEL

    def objection(self, host: str, port: int) -> str | None:
        """Return why no ExApp can have this target, None when one can."""
        if not is_loopback(host):
            return self._engine_objection(port) or _spelling_objection(host)
        if port in EXAPP_PORTS and port not in self.engine_ports and port not in self.listeners:
            return None  # a tunnel's, and a tunnel is nothing but its ExApp
        return self.address_objection(host, port)

    def address_objection(self, address: str, port: int) -> str | None:
        """Return why no ExApp can be reached by TCP at this IP address, None when one can.

        For what a name resolves to.
        """
        if is_loopback(address):
            if port in self.engine_ports or port in ENGINE_PORTS or port == LOCAL_ENGINE_PORT:
                return f"port {port} is an engine's, not an ExApp's"
            if port in self.listeners:
                return self.own_objection(port)
            if not self._is_local(port):
                return f"HP_LOCAL_EXAPPS does not allow ExApps on port {port} of loopback"
        return self._engine_objection(port)

    def own_objection(self, port: int) -> str | None:
        """Return why no ExApp can be reached at this port of an address of our own host, None when one can."""
        return f"port {port} is one of HaRP's own listeners" if port in self.listeners else None

    def _engine_objection(self, port: int) -> str | None:
        return f"port {port} is the Docker engine's (HP_DOCKER_HOST)" if port == self.engine_tcp_port != 0 else None

    def _is_local(self, port: int) -> bool:
        return any(port in ports for ports in self.local)


def exapp_targets_from(settings: Settings) -> ExAppTargets:
    """Return the part of the settings that is about the targets of ExApps."""
    listen = settings.listen
    addresses = (*listen.http, *listen.https, *listen.frp, *listen.admin)
    return ExAppTargets(
        engine_ports=settings.engines.ports,
        engine_tcp_port=settings.engines.host.port,
        listeners=frozenset(address.port for address in addresses if address.port),
        local=settings.local_exapps,
    )


def holder_objection(port: int, holder: str, app_id: str, *, strict: bool, other_exapp: bool) -> str | None:
    """Return why the tunnel named `holder` does not answer for the lower-cased ExApp `app_id`, None when it does.

    `other_exapp`: the name is the id of another ExApp. Without `strict`, names that are no ExApp's are tolerated:
    a tunnel set up by hand may have any.
    """
    if holder.lower() == app_id or not (strict or other_exapp):
        return None
    return f"port {port} is held by the tunnel of {holder}"


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Return whether this host name or address means the own host, without asking DNS."""
    name = host.strip("[]").rstrip(".").lower()
    if name in LOCAL_NAMES or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def _spelling_objection(host: str) -> str | None:
    """Refuse what only the C library reads as an address: 127.1, 0177.0.0.1, 2130706433."""
    if _NUMBERS(host.lower()) is None:
        return None
    try:
        ip_address(host.rstrip("."))
    except ValueError:
        return "its host is a number, but not an address in the usual form"
    return None
