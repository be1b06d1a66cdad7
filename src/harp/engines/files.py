"""Files of containers, through the archive calls of an engine; the container may run or not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from harp.engines.api import EngineApi
from harp.engines.archive import LARGEST_ARCHIVE, pack, unpack
from harp.engines.errors import EngineMissing
from harp.policy.ca_stores import File


class ContainerFiles:
    """The files of an engine's containers."""

    def __init__(self, api: EngineApi) -> None:
        self._api = api

    async def read(self, container: str, path: str) -> list[File] | None:
        """Return what is at `path`: a file, a link, or a directory's files; None = nothing."""
        where = f"/containers/{container}/archive"
        try:
            answer = await self._api.call("GET", where, query={"path": path}, largest=LARGEST_ARCHIVE)
        except EngineMissing:
            return None
        return await asyncio.to_thread(unpack, answer.body, path)

    async def present(self, container: str, path: str) -> bool:
        """Return whether there is anything at `path`."""
        try:
            await self._api.call("HEAD", f"/containers/{container}/archive", query={"path": path})
        except EngineMissing:
            return False
        return True

    async def write(self, container: str, directories: Sequence[str], files: Sequence[File]) -> None:
        """Put files in place, replacing what is there; `directories` are those to be made."""
        data = await asyncio.to_thread(pack, directories, files, time.time())
        await self._api.call("PUT", f"/containers/{container}/archive", query={"path": "/"}, data=data)
