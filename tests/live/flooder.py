"""A peer that keeps a tunnel server busy with frames that carry nothing; it comes back as often as it is closed.

As a program: `python -m tests.live.flooder <port> <flood> <seconds> <certificates or -> <login or ->`. It prints how
often it connected.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time
from contextlib import suppress
from pathlib import Path

from harp.wire import frp, yamux
from harp.wire.frp_crypto import privilege_key
from harp.wire.yamux import RST, SYN
from tests.live.product import KEY

PIECE = 200_000  # bytes written at once
FLOODS = ("data", "windows", "streams", "pings")


def frames(flood: str, first: int) -> bytes:
    """PIECE bytes of frames; streams are numbered from `first`."""
    if flood == "data":
        return yamux.data_header(1, 0) * (PIECE // 12)
    if flood == "windows":
        return yamux.window_update(1, 1) * (PIECE // 12)
    if flood == "pings":
        return yamux.ping(7) * (PIECE // 12)
    return b"".join(
        yamux.data_header(number, 1, SYN) + b"x" + yamux.window_update(number, 0, RST)
        for number in range(first, first + PIECE // 12, 2)
    )


def login() -> bytes:
    """In the framing of version 1."""
    now = int(time.time())
    return frp.encode(
        frp.Login(
            version="0.61.1",
            os="linux",
            arch="amd64",
            privilege_key=privilege_key("", now),
            timestamp=now,
            metas={"token": KEY},
        ),
        1,
    )


def connect(port: int, certificates: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    if certificates == "-":
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(Path(certificates) / "ca.crt")
    context.load_cert_chain(Path(certificates) / "client.crt", Path(certificates) / "client.key")
    return context.wrap_socket(sock, server_hostname="harp.nc")


def flood(sock: socket.socket, kind: str, end: float, *, logged_in: bool) -> None:
    """Until the peer has had enough, or the time is over."""
    sock.settimeout(0.05)
    hello = login() if logged_in else b""
    sock.sendall(yamux.window_update(1, 0, SYN) + (yamux.data_header(1, len(hello)) + hello if hello else b""))
    first = 3
    if logged_in:
        time.sleep(0.2)
    while time.monotonic() < end:
        with suppress(TimeoutError):
            while piece := frames(kind, first):
                sock.sendall(piece)
                first += PIECE // 12 & ~1
                if time.monotonic() > end:
                    return
                sock.recv(1 << 20)
        with suppress(TimeoutError):
            if not sock.recv(1 << 20):
                return


def main() -> None:
    port, kind, seconds, certificates, logged_in = sys.argv[1:6]
    end = time.monotonic() + float(seconds)
    connections = 0
    while time.monotonic() < end:
        connections += 1
        with suppress(OSError), connect(int(port), certificates) as sock:
            flood(sock, kind, end, logged_in=logged_in == "login")
    print(connections)


if __name__ == "__main__":
    main()
