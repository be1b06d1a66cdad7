"""Tar archives, in which engines give and take the files of containers."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterable

from harp.engines.errors import EngineError
from harp.policy.ca_stores import File

DIRECTORY_MODE = 0o755


def pack(directories: Iterable[str], files: Iterable[File], now: float) -> bytes:
    """An archive to be unpacked at "/". `directories` are made first; the existing ones must not be among them."""
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
    """The files and links of an archive that an engine made of `path`; a directory's own entries are below it.

    Raises EngineError when it is no archive.
    """
    parent = posixpath.dirname(path)
    found = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                place = posixpath.normpath(posixpath.join(parent, member.name))
                if member.issym():
                    found.append(File(place, link=member.linkname, mode=member.mode))
                elif member.isreg():
                    content = tar.extractfile(member)
                    assert content is not None
                    found.append(File(place, content.read(), "", member.mode & 0o7777, member.uid, member.gid))
    except (tarfile.TarError, OSError) as error:
        raise EngineError(f"the engine's archive of {path} cannot be read: {error}") from error
    return found
