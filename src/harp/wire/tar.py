"""Tar archives of strangers: bytes in, members out (POSIX.1-2001 pax, ustar, GNU's long names).

Not the standard library's reader: that one expands sparse members, follows negative sizes for ever, and looks through
extended headers with an expression of quadratic time (before Python 3.11.10 and 3.11.14). Here the work is that of
walking once over the bytes, and nothing becomes larger than it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from harp.errors import PeerError

BLOCK = 512
LONGEST_EXTENSION = 64 << 10  # bytes of one extended header or long name

_REGULAR = (b"0", b"\0", b"7")
_SYMLINK, _PAX, _GLOBAL, _LONG_NAME, _LONG_LINK, _SPARSE = b"2", b"x", b"g", b"L", b"K", b"S"
_WITHOUT_CONTENT = (b"1", _SYMLINK, b"3", b"4", b"5", b"6")  # links, devices, directories: the size says nothing


class Member(Struct, frozen=True):
    """One regular file or symbolic link."""

    name: str
    content: bytes = b""
    link: str = ""  # where a symbolic link points, "" = a file
    mode: int = 0
    uid: int = 0
    gid: int = 0


def members(data: bytes) -> Iterator[Member]:
    """Yield the regular files and symbolic links of an archive. Raises PeerError at what is not one, or sparse."""
    at = 0
    given: dict[str, str] = {}  # by the extended headers before a member
    while at < len(data):
        header = data[at : at + BLOCK]
        at += BLOCK
        if not header.strip(b"\0"):
            return
        kind = _checked(header)
        size = 0 if kind in _WITHOUT_CONTENT else _size(header, given)
        if at + size > len(data):
            raise PeerError("tar: truncated")
        content = data[at : at + size]
        at += -(-size // BLOCK) * BLOCK
        if kind in (_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK):
            if size > LONGEST_EXTENSION:
                raise PeerError(f"tar: an extended header of {size} bytes, limit {LONGEST_EXTENSION}")
            given |= _extension(kind, content)
            continue
        member = _member(header, kind, content, given)
        given = {}
        if member is not None:
            yield member


def _checked(header: bytes) -> bytes:
    """Return the kind of a member whose header is in order."""
    if len(header) != BLOCK:
        raise PeerError("tar: truncated")
    if _number(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise PeerError("tar: a header with a wrong checksum")
    kind = header[156:157]
    if kind == _SPARSE:
        raise PeerError("tar: a sparse member")
    return kind


def _member(header: bytes, kind: bytes, content: bytes, given: dict[str, str]) -> Member | None:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    name = given.get("path") or (f"{prefix}/" if prefix else "") + _text(header[:100])
    mode, uid, gid = _number(header[100:108]), _number(header[108:116]), _number(header[116:124])
    uid, gid = _decimal(given.get("uid"), uid), _decimal(given.get("gid"), gid)
    if kind == _SYMLINK:
        return Member(name, link=given.get("linkpath") or _text(header[157:257]), mode=mode, uid=uid, gid=gid)
    if kind in _REGULAR and not name.endswith("/"):  # a directory, in the oldest archives
        return Member(name, content, "", mode, uid, gid)
    return None


def _extension(kind: bytes, content: bytes) -> dict[str, str]:
    """Return what an extended header says of the next member; one for all members says nothing that matters here."""
    if kind == _LONG_NAME:
        return {"path": _text(content)}
    if kind == _LONG_LINK:
        return {"linkpath": _text(content)}
    if kind == _GLOBAL:
        return {}
    return dict(_records(content))


def _records(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of a pax header: `<length> <key>=<value>\\n`, the length that of the whole."""
    at = 0
    while at < len(content) and content[at]:
        blank = content.find(b" ", at, at + 8)
        length = _decimal(_text(content[at:blank]) if blank > at else None, 0)
        record = content[at : at + length]
        key, mark, value = record[blank + 1 - at : -1].partition(b"=")
        if not mark or len(record) != length or not record.endswith(b"\n"):
            raise PeerError("tar: an invalid extended header")
        if key.startswith(b"GNU.sparse."):
            raise PeerError("tar: a sparse member")
        at += length
        yield _text(key), _text(value)


def _size(header: bytes, given: dict[str, str]) -> int:
    return _decimal(given.get("size"), _number(header[124:136]))


def _number(field: bytes) -> int:
    """Read octal digits; or a large number of GNU's, which is two's complement after a first byte of 0x80 or 0xff."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    text = field.partition(b"\0")[0].strip(b" ")
    if not text:
        return 0
    if text.translate(None, b"01234567"):
        raise PeerError("tar: an invalid number")
    return int(text, 8)


def _decimal(text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise PeerError("tar: an invalid number")
    return int(text)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")
