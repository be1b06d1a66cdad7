"""Which engine has which port: what `harp engine add` and `register` gave away, in a file beside the certificates."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from harp.errors import HarpError, words_of
from harp.settings import Settings
from harp.wire.decoding import decoded

FILE = "engines.json"
KEYS = "engine-keys.json"
LONGEST = 65536  # bytes

K = TypeVar("K", int, str)


class EngineNamesError(HarpError):
    """The file cannot be read or written; the text says which and why."""


class _Kept(Generic[K]):
    """A small table in a file. Reads and writes files: call it off the event loop."""

    def __init__(self, path: Path, shape: type[dict[K, str]]) -> None:
        self.path = path
        self._shape: type[dict[K, str]] = shape

    def all(self) -> Mapping[K, str]:
        """Return the whole table. Raises EngineNamesError when the file is damaged."""
        try:
            with self.path.open("rb") as file:
                content = file.read(LONGEST)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise EngineNamesError(f"{self.path}: {words_of(error)}") from error
        return decoded(content, self._shape, self._damaged)

    def _damaged(self, error: Exception) -> EngineNamesError:
        return EngineNamesError(f"{self.path}: {error}; put it right or remove it")

    @contextmanager
    def changing(self) -> Iterator[dict[K, str]]:
        """Give the table to change, and write them when the block is over; one process at a time.

        Raises EngineNamesError when that cannot be done; an exception of the block leaves the file as it was.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EngineNamesError(f"{self.path}: {words_of(error)}; engine ports are remembered there") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            engines = dict(self.all())
            yield engines
            self._write(engines)
        finally:
            os.close(lock)

    def _write(self, engines: Mapping[K, str]) -> None:
        fresh = self.path.with_suffix(".new")
        try:
            fresh.write_bytes(
                msgspec.json.encode({str(port): engines[port] for port in sorted(engines, key=str)}) + b"\n"
            )
            fresh.replace(self.path)
        except OSError as error:
            raise EngineNamesError(f"{self.path}: {words_of(error)}; engine ports are remembered there") from error


def engines_directory(settings: Settings) -> Path:
    """Return where the engines of a Nextcloud are remembered: where there are several, each has its own."""
    directory = settings.certs / "frp"
    return directory / "instances" / settings.instance if settings.instance else directory


class EngineNames(_Kept[int]):
    """Port -> name, kept in `directory`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / FILE, dict[int, str])


class EngineKeys(_Kept[str]):
    """Name -> salt of the engine's own key, kept in `directory`; who is not in it logs in with the shared key."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / KEYS, dict[str, str])
