"""Symbolic links on an engine's host, as far as the engine shows them (Docker does, podman does not).

A list of paths compares texts, and a link below an allowed directory may lead anywhere. So a container that is never
started gets the directory to look from, read-only, and each step of the way from there is looked at. Links created
between this check and the start of the ExApp are not noticed.
"""

from __future__ import annotations

import posixpath
from base64 import b64decode
from secrets import token_hex

import structlog
from msgspec import Struct

from harp.engines.api import EngineApi
from harp.engines.errors import EngineError, EngineMissing, EngineRefused
from harp.engines.files import ContainerFiles
from harp.engines.replies import Created, parse

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

PLACE = "/harp-look"  # in the container that looks
STAT_HEADER = "x-docker-container-path-stat"
SYMLINK = 1 << 27  # os.ModeSymlink of Go
CLEAN_UP = 10.0  # seconds


class _Stat(Struct, frozen=True):
    mode: int = 0


async def first_link(api: EngineApi, image: str, root: str, path: str) -> str | None:
    """Return where `path` on the engine's host leads by the first link below `root`; None when it has none there.

    `image` is any that the engine has. An engine that refuses this will refuse the mount, too, with a better message.
    """
    mount = {"Type": "bind", "Source": root, "Target": PLACE, "ReadOnly": True}
    body = {"Image": image, "NetworkDisabled": True, "Entrypoint": ["/"], "HostConfig": {"Mounts": [mount]}}
    try:
        made = await api.call("POST", "/containers/create", query={"name": f"harp_look_{token_hex(6)}"}, body=body)
    except EngineRefused:
        return None
    looker = parse(made.body, Created).id
    try:
        return await _led(api, looker, root, path)
    finally:
        await _remove(api, looker)


async def _led(api: EngineApi, looker: str, root: str, path: str) -> str | None:
    steps = posixpath.relpath(path, root).split("/")
    for depth in range(1, len(steps) + 1):
        below = "/".join(steps[:depth])
        seen = f"{PLACE}/{below}"
        try:
            answer = await api.call("HEAD", f"/containers/{looker}/archive", query={"path": seen})
        except EngineMissing:
            return None
        if not _is_link(answer.headers.get(STAT_HEADER, "")):
            continue
        found = await ContainerFiles(api).read(looker, seen)
        if not found or not found[0].link:
            return None
        here = posixpath.join(root, below)
        return posixpath.normpath(posixpath.join(posixpath.dirname(here), found[0].link, *steps[depth:]))
    return None


def _is_link(stat: str) -> bool:
    try:
        text = b64decode(stat)
    except ValueError:
        return False
    return bool(text) and bool(parse(text, _Stat).mode & SYMLINK)


async def _remove(api: EngineApi, looker: str) -> None:
    try:
        await api.call("DELETE", f"/containers/{looker}", query={"force": "true", "v": "true"}, limit=CLEAN_UP)
    except EngineError as error:
        log.warning("container left behind", engine=api.name, container=looker, reason=str(error))
