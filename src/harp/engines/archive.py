"""Tar archives, the form in which engines exchange files of containers."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterable

from harp.engines.errors import EngineError
from harp.errors import PeerError
from harp.policy.ca_stores import File
from harp.wire.tar import members

DIRECTORY_MODE = 0o755
LARGEST_ARCHIVE = 8 << 20  # bytes; nothing in it becomes larger when it is unpacked
MOST_MEMBERS = 10_000


def pack(directories: Iterable[str], files: Iterable[File], now: float) -> bytes:
    """Return an archive to be unpacked at "/".

    `directories` are made first; the existing ones must not be among them.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in directories:
            member = tarfile.TarInfo(path.lstrip("/"))
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, DIRECTORY_MODE, int(now)
            tar.addfile(member)
        for file in files:
            member = tarfile.TarInfo(file.path.lstrip("/"))
            member.mode, member.uid, member.gid, member.mtime = file.mode, file.uid, file.gid, int(now)
            if file.link:
                member.type, member.linkname = tarfile.SYMTYPE, file.link
            else:
                member.size = len(file.content)
            tar.addfile(member, io.BytesIO(file.content))
    return buffer.getvalue()


def unpack(data: bytes, path: str) -> list[File]:
    """Read the files and links of an archive that an engine made of `path`; a directory's own entries are below it.

    Raises EngineError for whatever is not such an archive, and for one of more than MOST_MEMBERS.
    """
    parent = posixpath.dirname(path)
    found: list[File] = []
    try:
        for member in members(data):
            if len(found) >= MOST_MEMBERS:
                raise EngineError(f"the engine's archive of {path} has more than {MOST_MEMBERS} members")
            place = posixpath.normpath(posixpath.join(parent, member.name))
            found.append(File(place, member.content, member.link, member.mode & 0o7777, member.uid, member.gid))
    except PeerError as error:
        raise EngineError(f"the engine's archive of {path} cannot be read: {error}") from error
    return found
