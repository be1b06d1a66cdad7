"""Archives of strangers: read like the standard library's own, refused in words, and never more than they are."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.errors import PeerError
from harp.wire.tar import Member, members

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/\n"), min_size=1, max_size=120)


def packed(*entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for entry in entries:
            info, content = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def header(kind: bytes, size: bytes = b"00000000000\0", name: bytes = b"x") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1500), st.integers(0, 0o7777), st.integers(0, 1 << 40)), max_size=5),
    st.sampled_from(FORMATS[1:]),
)
def test_files_of_every_format_are_read_as_they_were_packed(
    files: list[tuple[str, bytes, int, int]], kind: int
) -> None:
    entries = []
    for name, content, mode, uid in files:
        info = tarfile.TarInfo(name)
        info.mode, info.uid = mode, uid
        entries.append((info, content))
    read = list(members(packed(*entries, kind=kind)))
    assert read == [Member(name, content, "", mode, uid, 0) for name, content, mode, uid in files]


@pytest.mark.parametrize("kind", FORMATS)
def test_links_long_names_and_directories(kind: int) -> None:
    link = tarfile.TarInfo("etc/ssl/certs/" + "a" * 80)
    link.type, link.linkname = tarfile.SYMTYPE, "/usr/share/" + "b" * 80
    directory = tarfile.TarInfo("etc")
    directory.type = tarfile.DIRTYPE
    deep = tarfile.TarInfo("d" * 100 + "/" + "f" * 50)
    read = list(members(packed(directory, link, (deep, b"content"), kind=kind)))
    assert [(member.name, member.link, member.content) for member in read] == [
        (link.name, link.linkname, b""),
        (deep.name, "", b"content"),
    ]


def pax(**records: str) -> bytes:
    info = tarfile.TarInfo("x")
    info.pax_headers = {key.replace("__", "."): value for key, value in records.items()}
    return packed((info, b"data"))


@pytest.mark.parametrize(
    "archive",
    [
        header(b"S", b"00000000010\0"),
        pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="600000000"),
        pax(GNU__sparse__map="0,1", GNU__sparse__size="600000000"),
        pax(GNU__sparse__size="600000000", GNU__sparse__offset="0"),
    ],
    ids=["old GNU", "1.0", "0.1", "0.0"],
)
def test_sparse_members_of_all_kinds_are_refused(archive: bytes) -> None:
    with pytest.raises(PeerError, match="sparse"):
        list(members(archive))


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (b"x" * 512, "an invalid number"),
        (header(b"0")[:-1] + b"x", "checksum"),
        (b"x" * 100, "truncated"),
        (header(b"0", b"77777777777\0"), "truncated"),
        (header(b"0", b"\xff" * 12), "an invalid number"),
        (header(b"0", b"\x80" + b"\xff" * 11), "truncated"),
        (header(b"0", b"0000000009x\0"), "an invalid number"),
        (header(b"x", b"00000000010\0") + b"99 a=b\n\0".ljust(512, b"\0"), "an invalid extended header"),
        (header(b"x", b"00000000010\0") + b"8 size=\n".ljust(512, b"\0") + header(b"0"), "an invalid number"),
        (header(b"x", b"00000000010\0") + b"0 a=bcd\n".ljust(512, b"\0"), "an invalid extended header"),
        (header(b"L", b"00001000000\0") + bytes(1 << 18), "limit 65536"),
    ],
)
def test_what_is_no_archive_is_refused_in_words(archive: bytes, reason: str) -> None:
    with pytest.raises(PeerError, match=reason):
        list(members(archive))


BASE = packed(
    (tarfile.TarInfo("name"), b"content"), (tarfile.TarInfo("n" * 200), b"x" * 600), tarfile.TarInfo("ö" * 90)
)


@given(st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), max_size=8), st.integers(0, len(BASE)))
def test_whatever_is_done_to_an_archive_it_is_read_or_refused(changes: list[tuple[int, int]], end: int) -> None:
    archive = bytearray(BASE)
    for at, byte in changes:
        archive[at] = byte
    for start in range(0, len(archive), 512):  # most changes would end at the checksum
        block = archive[start : start + 512]
        if block.strip(b"\0"):
            block[148:156] = b" " * 8
            archive[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    for data in (bytes(archive), bytes(archive[:end])):
        with suppress(PeerError):
            list(members(data))


@pytest.mark.parametrize(
    "archive",
    [
        lambda size: header(b"x", b"%011o\0" % 65536) + b"1" * 65536 + bytes(size),
        lambda size: (header(b"x", b"%011o\0" % 512) + b"1" * 512) * (size // 1024),
        lambda size: header(b"0") * (size // 512),
        lambda size: (header(b"L", b"%011o\0" % 512) + b"n" * 512) * (size // 1024),
    ],
    ids=["one long number", "many", "many members", "names without end"],
)
def test_four_megabytes_of_anything_are_take_less_than_a_second_of_cpu(archive: Callable[[int], bytes]) -> None:
    data = archive(4 << 20)
    began = process_time()
    with suppress(PeerError):
        list(members(data))
    assert process_time() - began < 1
