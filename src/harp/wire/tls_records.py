"""Where the records of TLS end (RFC 8446 section 5.1), so that nobody tries to decrypt half of one."""

from __future__ import annotations

from collections.abc import Iterator

HEADER = 5  # bytes: type, version, length
SLICE = 16 * 1024  # bytes: records are put together until they reach it; the largest one has little more


class Records:
    """Cuts what arrives into slices that end where a record does, but for the last."""

    __slots__ = ("_head", "_missing")

    def __init__(self) -> None:
        self._head = b""  # the beginning of a header
        self._missing = 0  # bytes of the record that has begun

    def cut(self, data: memoryview | bytes) -> Iterator[tuple[memoryview | bytes, bool]]:
        """Slices of these bytes and what was left of those before, and whether each ends with a record."""
        if self._head:
            data = self._head + bytes(data)
            self._head = b""
        size = len(data)
        begin = whole = 0
        at = self._missing
        while at <= size:
            whole = at
            if whole - begin >= SLICE:
                yield data[begin:whole], True
                begin = whole
            if at + HEADER > size:
                break
            at += HEADER + (data[at + 3] << 8 | data[at + 4])
        if whole > begin:
            yield data[begin:whole], True
        if at > size:
            self._missing = at - size
            yield data[whole:], False
        else:
            self._missing = 0
            self._head = bytes(data[whole:])
