"""Writes lines without ever blocking: a stalled reader must not stop the program."""

from __future__ import annotations

import atexit
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Protocol

CAPACITY = 512 * 1024  # bytes that wait for a slow reader; the thread holds as many again while it writes them
PIECE = 64 * 1024  # bytes per write
NEWLINE = b"\n"[0]
EXIT_LIMIT = 1.0  # seconds that waiting lines may take at the end

Notice = Callable[[int], bytes]  # the line that says how many were lost


class Sink(Protocol):
    """What lines can be written to; neither method raises or waits."""

    def write(self, data: bytes) -> int: ...
    def flush(self) -> None: ...


class Output:
    """Writes lines to a descriptor, in a thread of its own that begins with the first line.

    A thread, and not a non-blocking descriptor, because that would be non-blocking for every process that shares the
    terminal or pipe, and because a file on a dead disk blocks all the same. What does not fit in CAPACITY, and what the
    descriptor refuses, is dropped and counted; `notice` reports this as soon as lines can be written again.
    """

    def __init__(self, descriptor: int, notice: Notice) -> None:
        self._descriptor = descriptor
        self._notice = notice
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._size = 0  # bytes that wait
        self._dropped = 0  # lines, since the last notice
        self._busy = False  # the thread writes
        self._torn = False  # the last write ended within a line
        self._thread: threading.Thread | None = None

    def write(self, data: bytes) -> int:
        """Have whole lines written, or dropped and counted."""
        with self._changed:
            if self._size and self._size + len(data) > CAPACITY:
                self._dropped += data.count(b"\n")
                return len(data)
            self._waiting.append(data)
            self._size += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
                atexit.register(self.drain, EXIT_LIMIT)
            self._changed.notify_all()
        return len(data)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    def drain(self, limit: float) -> bool:
        """Wait until all is written, for at most `limit` seconds. False when that was not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, limit)

    # The thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                data = b"".join(self._waiting)
                lost, self._dropped = self._dropped, 0
                self._waiting.clear()
                self._size = 0
                self._busy = True
            missing = self._put(data)
            if lost and self._put(self._notice(lost)):
                missing += lost
            if missing:
                with self._changed:
                    self._dropped += missing

    def _put(self, data: bytes) -> int:
        """Write lines; return how many could not be written."""
        if self._torn:
            data = b"\n" + data
        at = 0
        with suppress(OSError):  # a full disk, a pipe without a reader
            while at < len(data):
                at += self._written(memoryview(data)[at : at + PIECE])
        if at:
            self._torn = data[at - 1] != NEWLINE
        return data.count(b"\n", at)

    def _written(self, piece: memoryview) -> int:
        try:
            return os.write(self._descriptor, piece)
        except BlockingIOError:  # somebody who shares the descriptor has made it so
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0


class Lossy:
    """A stream without a descriptor, written at once; what it refuses is dropped."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        with suppress(OSError):
            self._stream.write(data)
        return len(data)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class Nowhere:
    """Instead of a standard stream that was closed when we started: its descriptor may be a socket by now."""

    def write(self, data: bytes) -> int:
        return len(data)

    def flush(self) -> None:
        pass


class Outputs:
    """The outputs of a process. Streams that lead to one file share one, so that their lines do not cut each other."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], Output] = {}

    def to(self, stream: BinaryIO | None, notice: Notice) -> Sink:
        """Return the output for a stream."""
        if stream is None:
            return Nowhere()
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError):
            return Lossy(stream)
        file = os.fstat(descriptor)
        return self._open.setdefault((file.st_dev, file.st_ino), Output(descriptor, notice))

    def drain(self, limit: float = EXIT_LIMIT) -> None:
        """Wait until all lines are written, for at most `limit` seconds each."""
        for output in self._open.values():
            output.drain(limit)
