"""How a connection ends when its peer is to see that something is missing."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

_AT_ONCE = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """End a connection with a TCP reset, and over TLS without close_notify.

    `abort` alone says FIN, as if everything had been sent. Harmless on a transport that has ended already.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        with suppress(OSError, ValueError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()
