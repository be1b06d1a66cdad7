"""What systemd wants to know of a service with Type=notify: sd_notify(3), which is a datagram."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(message: str) -> None:
    """Tell systemd, if it has started us as a unit with Type=notify."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)
