"""Listening sockets that were open before we started: those of systemd, or of the HaRP that this one replaces.

A socket is used for the address it is bound to. systemd's protocol is that of sd_listen_fds(3): LISTEN_PID, LISTEN_FDS
and LISTEN_FDNAMES, with descriptors from 3 on.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import suppress

import structlog
from msgspec import Struct

from harp.net.listen import ListenError, bound_group
from harp.settings import Address
from harp.settings.model import Listen

FIRST = 3  # systemd's first descriptor
SAME = ({"0.0.0.0", "::"}, {"localhost", "127.0.0.1"})  # noqa: S104 - systemd's `ListenStream=8780` is "::", for both
VARIABLES = {
    "http": "HP_EXAPPS_ADDRESS",
    "https": "HP_EXAPPS_HTTPS_ADDRESS",
    "frp": "HP_FRP_ADDRESS",
    "admin": "HP_ADMIN_ADDRESS",
}

log = structlog.get_logger()


class GivenSocket(Struct, frozen=True):
    """A listening socket that was open before we started. `name` is what systemd calls it, or the address it is for."""

    sock: socket.socket
    name: str = ""

    @property
    def place(self) -> Address:
        """Where it listens."""
        where = self.sock.getsockname()
        if self.sock.family == socket.AF_UNIX:
            return Address("", 0, os.fsdecode(where))
        return Address(where[0], where[1])

    def serves(self, address: Address) -> bool:
        """Return whether it is what we would have opened for an address."""
        if self.name == str(address):
            return True
        place = self.place
        if address.path or place.path:
            return address.path == place.path
        hosts = {address.host, place.host}
        return address.port == place.port and (len(hosts) == 1 or any(hosts <= same for same in SAME))


class GivenSockets:
    """Gives each listener its sockets: those that are there, and new ones for other addresses."""

    def __init__(self, given: Sequence[GivenSocket] = ()) -> None:
        self._given = list(given)

    def __len__(self) -> int:
        """Return how many have not been taken yet."""
        return len(self._given)

    def check(self, listen: Listen, *, secure: bool) -> None:
        """Raise ListenError for sockets that no listener wants, each with the variable that should say the same."""
        wanted = {"http": listen.http, "https": listen.https, "frp": listen.frp, "admin": listen.admin}
        problems = []
        for one in self._given:
            names = (one.name,) if one.name in wanted else tuple(wanted)
            addresses = [address for name in names for address in wanted[name]]
            if not any(one.serves(address) for address in addresses):
                variables = " or ".join(VARIABLES[name] for name in names)
                said = "" if len(names) > 1 else f", which says {', '.join(map(str, addresses))}"
                problems.append(f"systemd has socket {one.name!r} on {one.place}; make {variables}{said}, the same")
        if problems:
            raise ListenError("; ".join(problems))
        if not secure and any(one.serves(address) for one in self._given for address in listen.https):
            log.warning("socket not served", reason="HTTPS needs cert.pem in HP_CERTS_DIR", fix="add it, or no socket")

    def bind(self, addresses: tuple[Address, ...]) -> list[socket.socket]:
        """As `Bind`. Raises ListenError, with nothing left open."""
        return [sock for group in self.groups(addresses, 1) for sock in group]

    def groups(self, addresses: tuple[Address, ...], count: int) -> list[list[socket.socket]]:
        """Return `count` sockets for each address, that are listened on together. Raises ListenError."""
        groups: list[list[socket.socket]] = []
        try:
            for address in addresses:
                groups.append(self._taken(address, count) or bound_group(address, count))
        except ListenError:
            for sock in [sock for group in groups for sock in group]:
                sock.close()
            raise
        return groups

    def close(self) -> None:
        """Leave those that nobody has wanted to whoever else has them."""
        for one in self._given:
            one.sock.close()
        self._given.clear()

    def _taken(self, address: Address, count: int) -> list[socket.socket]:
        """Take `count` for an address: connections that wait in any of them must not wait for ever."""
        found = [one for one in self._given if one.serves(address)]
        self._given = [one for one in self._given if one not in found]
        sockets = [one.sock for one in found]
        for spare in sockets[count:]:
            spare.close()
        return [*sockets[:count], *(sockets[0].dup() for _ in range(count - len(sockets)) if sockets)]


def sockets_of_systemd(env: MutableMapping[str, str], process: int, first: int = FIRST) -> list[GivenSocket]:
    """Return the sockets of socket activation, if there are any for this process, and remove the variables.

    Raises ListenError for what is not a listening stream socket.
    """
    there = env.get("LISTEN_PID") == str(process)
    count, names = env.get("LISTEN_FDS", ""), env.get("LISTEN_FDNAMES", "").split(":")
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        env.pop(variable, None)  # so that no process of ours takes them for its own
    if not there or not count.isdecimal():
        return []
    numbers = range(first, first + int(count))
    named = [*names, *[""] * len(numbers)]
    return [GivenSocket(_listening(number), name) for number, name in zip(numbers, named, strict=False)]


def inherited(descriptors: Sequence[tuple[str, int]]) -> Iterator[GivenSocket]:
    """Yield the sockets, each with its address, that the HaRP before us has left open for us. Raises ListenError."""
    for address, number in descriptors:
        yield GivenSocket(_listening(number), address)


def _listening(number: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        raise ListenError(f"descriptor {number}, which we were started with, is not a socket") from error
    os.set_inheritable(number, False)
    with suppress(OSError):
        if sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return sock
    sock.close()
    raise ListenError(f"descriptor {number}, which we were started with, does not listen; use ListenStream= in systemd")
