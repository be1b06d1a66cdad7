"""Installs certificates in containers by copying files: nothing is started or executed (difference 11).

Works for created, running and stopped containers, for any user and any distribution, with or without a shell.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import structlog

from harp.errors import words_of
from harp.policy.ca_stores import ANY, DEBIAN, File, Layout, Store, additions, certificates, layout_of

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

TUNNEL_DIRECTORY = "/certs/frp"  # where the entry point of ExApps looks (A 8.1)
TUNNEL_FILES = ("ca.crt", "client.crt", "client.key")
LINKS = 8  # followed for one file, as deep as nobody nests them
OS_RELEASES = ("/etc/os-release", "/usr/lib/os-release")


class Files(Protocol):
    """The files of an engine's containers: `DockerEngine`."""

    async def read(self, container: str, path: str) -> list[File] | None:
        """Return what is at `path`: a file, a link, or a directory's files; None = nothing."""
        ...

    async def present(self, container: str, path: str) -> bool:
        """Return whether there is anything at `path`."""
        ...

    async def write(self, container: str, directories: Sequence[str], files: Sequence[File]) -> None:
        """Put files in place; `directories` are those to be made."""
        ...


def tunnel_files(directory: Path) -> list[File]:
    """Return what a tunnel client needs, readable for whatever user the ExApp runs as; [] when something is missing."""
    try:
        return [File(f"{TUNNEL_DIRECTORY}/{name}", (directory / name).read_bytes()) for name in TUNNEL_FILES]
    except OSError as error:
        log.warning("no tunnel certificates for ExApps", directory=str(directory), reason=words_of(error))
        return []


async def provide(files: Files, container: str, bundle: str, extra: Sequence[File]) -> None:
    """Make `container` trust the CAs of `bundle` (PEM, "" = none), and put the `extra` files there."""
    place = _Place(files, container)
    wanted = await asyncio.to_thread(_parsed, bundle.encode("utf-8", "replace")) if bundle else ()
    new = list(extra)
    if wanted:
        store = await place.store()
        new += await asyncio.to_thread(additions, wanted, store)
    elif bundle.strip():
        log.warning("no certificate in the bundle", container=container)
    if new:
        await files.write(container, await place.missing_directories(new), new)
    log.info("certificates installed", container=container, wanted=len(wanted), files=len(new))


@lru_cache(maxsize=2)  # Nextcloud sends the same bundle for every ExApp
def _parsed(bundle: bytes) -> tuple[bytes, ...]:
    return tuple(certificates(bundle))


class _Place:
    """One view into a container; files are read once."""

    def __init__(self, files: Files, container: str) -> None:
        self._files = files
        self._container = container
        self._known: dict[str, File] = {}
        self._listed: dict[str, list[File] | None] = {}  # what was at a path
        self._directories: set[str] = {"/"}  # that exist

    async def store(self) -> Store:
        """Return what the container trusts now."""
        layout = await self._layout()
        layout, hashed = await self._hashed(layout)
        bundles = await self._bundles(layout.bundles)
        if not bundles and layout is not ANY:
            bundles = await self._bundles(ANY.bundles)
        return Store(layout, bundles, hashed)

    async def _layout(self) -> Layout:
        """Return how the container's distribution does it.

        Most are Debian's kind, Alpine among them, and seen to be by what they have: a file read costs an engine up to
        a tenth of a second, a mere look a tenth of that.
        """
        await self._read(DEBIAN.hashed)
        bundle = self._known.get(DEBIAN.bundles[0])
        if bundle is not None and not bundle.link and await self._files.present(self._container, DEBIAN.anchors):
            self._directories.add(DEBIAN.anchors)
            return DEBIAN
        for path in OS_RELEASES:
            release = await self._follow(path)
            if release is not None:
                return layout_of(release.content.decode("utf-8", "replace"))
        return ANY

    async def _hashed(self, layout: Layout) -> tuple[Layout, frozenset[str] | None]:
        """Return the layout with the real path of its hashed directory, and the names there."""
        path = layout.hashed
        found = await self._read(path)
        for _ in range(LINKS):
            if not found or found[0].path != path:
                break
            path = _target(found[0])
            found = await self._read(path)
        if found is None:
            return layout, None
        self._directories.add(path)
        names = frozenset(posixpath.basename(file.path) for file in found)
        return Layout(layout.bundles, layout.anchors, path), names

    async def _bundles(self, paths: Iterable[str]) -> tuple[File, ...]:
        """Return those that exist, under their real paths."""
        found: dict[str, File] = {}
        for path in paths:
            file = await self._follow(path)
            if file is not None:
                found[file.path] = file
        return tuple(found.values())

    async def _follow(self, path: str) -> File | None:
        """Return the file at `path`, through links; None when there is none."""
        for _ in range(LINKS):
            file = await self._at(path)
            if file is None or not file.link:
                return file
            path = _target(file)
        return None

    async def _at(self, path: str) -> File | None:
        if path not in self._known:
            await self._read(path)
        return self._known.get(path)

    async def _read(self, path: str) -> list[File] | None:
        """Return what is at a path, read once."""
        if path not in self._listed:
            found = self._listed[path] = await self._files.read(self._container, path)
            self._known |= {file.path: file for file in found or ()}
        return self._listed[path]

    async def missing_directories(self, files: Sequence[File]) -> list[str]:
        """Return the directories that `files` need and that are not there, outer ones first."""
        missing: list[str] = []
        for parent in dict.fromkeys(posixpath.dirname(file.path) for file in files):
            chain: list[str] = []
            while parent not in self._directories and not await self._files.present(self._container, parent):
                chain.append(parent)
                self._directories.add(parent)
                parent = posixpath.dirname(parent)
            self._directories.add(parent)
            missing += reversed(chain)
        return missing


def _target(link: File) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(link.path), link.link))
