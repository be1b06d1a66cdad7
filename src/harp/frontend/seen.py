"""How a step of `harp doctor` has arrived, as one header line for the control API, which gives it back as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from harp.frontend.caller import Caller
from harp.policy.client_address import told_addresses
from harp.settings import Proxies
from harp.state.walks import SEEN, SeenStep
from harp.wire.requests import RequestHead

if TYPE_CHECKING:
    from harp.frontend.connection import ClientConnection

LONGEST = 512  # bytes of a value that others chose


def seen_line(connection: ClientConnection, head: RequestHead, caller: Caller, proxies: Proxies) -> bytes:
    """Return the header line, complete."""
    place = connection.transport.get_extra_info("peername")
    seen = SeenStep(
        path=_text(head.path),
        peer=connection.peer,
        peer_port=place[1] if isinstance(place, tuple) else 0,
        address=caller.address,
        told=_text(told_addresses(head.fields.special, proxies.header.encode())),
        neighbour=caller.read_by.is_neighbour(connection.peer),
        host=_text(caller.host),
        proto=_text(caller.proto),
        upgrade=head.upgrade is not None,
    )
    encoded = msgspec.json.encode(seen).decode()
    ascii_only = "".join(c if c.isascii() and c.isprintable() else f"\\u{ord(c):04x}" for c in encoded)
    return f"{SEEN}: {ascii_only}\r\n".encode()


def _text(value: bytes) -> str:
    return value[:LONGEST].decode("latin-1")
