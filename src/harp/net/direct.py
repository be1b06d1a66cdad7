"""A transport for clients that want one answer: it reads and writes their socket itself, and tells the loop late.

A transport of the loop watches its socket from the beginning, which costs more than all that such a client has to say:
its request is there when it is accepted, and after the answer it is gone. `DirectTransport` watches nothing until there
is something to wait for: more of the request, room for more of the answer, or a client that leaves while its answer
takes its time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from fcntl import ioctl
from termios import FIONREAD
from typing import Any, Protocol

NOW = socket.MSG_DONTWAIT
NONE = bytes(4)  # what FIONREAD says where nothing waits
HIGH_WATER = 64 * 1024  # bytes, as long as nobody says otherwise
LOW = 4  # writing may go on below this part of the high water mark


class Receiver(Protocol):
    """asyncio.BufferedProtocol."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to."""

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""

    def eof_received(self) -> bool:
        """Take note that the client sends no more; True: it may still read."""

    def pause_writing(self) -> None:
        """Write less."""

    def resume_writing(self) -> None:
        """Go on."""


class DirectTransport:
    """An asyncio.Transport of a connected stream socket, see the module. It closes the socket.

    `unwatched` are the transports that somebody else has to `watch` a little later, this one among them.
    """

    __slots__ = (
        "_blocked",
        "_client",
        "_closing",
        "_ended",
        "_finishing",
        "_high",
        "_loop",
        "_paused",
        "_peer",
        "_size",
        "_sock",
        "_unsent",
        "_unwatched",
        "_watched",
    )

    def __init__(self, sock: socket.socket, peer: Any, client: Receiver, unwatched: set[DirectTransport]) -> None:
        """`peer` is the address of the other end, as `accept` returns it."""
        self._sock = sock
        self._peer = peer
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._unwatched = unwatched
        self._unsent: list[bytes] = []
        self._size = 0  # bytes of it
        self._high = HIGH_WATER
        self._blocked = False  # more waits than the client's protocol should write
        self._watched = False
        self._paused = False
        self._ended = False  # the client sends no more
        self._finishing = False  # we send no more
        self._closing = False
        unwatched.add(self)

    def __repr__(self) -> str:
        words = [
            *(["watched"] if self._watched else []),
            *(["closing"] if self._closing else []),
            *([f"{self._size} bytes wait"] if self._size else []),
        ]
        return f"<DirectTransport {', '.join(words) or 'open'}>"

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the "peername" or the "socket"."""
        if name == "peername":
            return self._peer
        return self._sock if name == "socket" else default

    # Reading

    def read(self) -> None:
        """Read once."""
        client = self._client
        try:
            size = self._sock.recv_into(client.get_buffer(-1), 0, NOW)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if size:
            client.buffer_updated(size)
            return
        self._ended = True
        self._stop_watching()
        if not client.eof_received():
            self.close()

    def watch(self) -> None:
        """Read from now on whenever there is something, unless reading is paused."""
        if not (self._closing or self._ended or self._paused or self._watched):
            self._watched = True
            self._unwatched.discard(self)
            self._loop.add_reader(self._sock, self.read)

    def pause_reading(self) -> None:
        self._paused = True
        self._stop_watching()

    def resume_reading(self) -> None:
        self._paused = False
        self.watch()

    def _stop_watching(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._sock)

    # Writing

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        self._high = HIGH_WATER if high is None else high

    def get_write_buffer_size(self) -> int:
        return self._size

    def write(self, data: bytes) -> None:
        if self._closing or not data:
            return
        if not self._unsent:
            sent = self._send(data)
            if self._closing or sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self._sock, self._send_more)
        self._unsent.append(data)
        self._size += len(data)
        if self._size > self._high and not self._blocked:
            self._blocked = True
            self._client.pause_writing()

    def writelines(self, parts: Sequence[bytes]) -> None:
        self.write(b"".join(parts))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Send no more; the client may."""
        if not (self._closing or self._finishing):
            self._finishing = True
            if not self._unsent:
                self._shut()
            self.watch()

    def _send(self, data: bytes) -> int:
        """Send as much as there is room for; 0 also where that fails, which ends the connection."""
        try:
            return self._sock.send(data, NOW)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._end(error)
            return 0

    def _send_more(self) -> None:
        data = b"".join(self._unsent)
        sent = self._send(data)
        if not self._unsent:  # it has failed
            return
        self._size -= sent
        self._unsent = [data[sent:]]
        if not self._size:
            self._unsent = []
            self._loop.remove_writer(self._sock)
            if self._closing:
                self._end(None)
                return
            if self._finishing:
                self._shut()
        if self._blocked and self._size <= self._high // LOW and not self._closing:
            self._blocked = False
            self._client.resume_writing()

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._end(error)

    # The end

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Send what waits, then end."""
        if self._closing:
            return
        self._closing = True
        self._stop_watching()
        if not self._unsent:
            self._end(None)

    def abort(self) -> None:
        """End now."""
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        sock = self._sock
        if sock.fileno() < 0:
            return
        self._closing = True
        self._stop_watching()
        self._unwatched.discard(self)
        if self._unsent:
            self._unsent = []
            self._size = 0
            self._loop.remove_writer(sock)
        elif error is None and not self._ended:
            self._swallow()
        sock.close()
        self._loop.call_soon(self._client.connection_lost, error)

    def _swallow(self) -> None:
        """Read what nobody wants: the system would reset the connection for it, and lose the answer's last bytes."""
        if ioctl(self._sock, FIONREAD, NONE) != NONE:
            try:
                self._sock.recv_into(self._client.get_buffer(-1), 0, NOW)
            except OSError:
                return
