"""Token and certificate authorities for an API server: both change while HaRP runs, so the files are read again."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

from harp.engines.errors import EngineUnreachable
from harp.errors import words_of
from harp.settings import Kubernetes

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

LOOK = 10.0  # seconds between looks at the files
LARGEST_TOKEN = 64 << 10  # bytes


class ClusterLogin:
    """What a call is made with."""

    def __init__(self, settings: Kubernetes, now: Callable[[], float]) -> None:
        self._settings = settings
        self._now = now
        self._token = settings.token
        self._context: ssl.SSLContext | bool | None = None
        self._ca_changed: int | None = None  # when the file of the authorities in use was changed
        self._looked = float("-inf")

    async def current(self) -> tuple[str, ssl.SSLContext | bool]:
        """Return the token, and how to do TLS (True: plain HTTP, or as the system does). Raises EngineUnreachable."""
        if not self._settings.api_server:
            raise EngineUnreachable("Kubernetes API server is not configured.")
        if self._context is None or self._now() - self._looked >= LOOK:
            await asyncio.to_thread(self._look)
        if not self._token:
            raise EngineUnreachable("Kubernetes token is not configured.")
        assert self._context is not None
        return self._token, self._context

    def doubt(self) -> None:
        """The API server refuses the token or its certificate does: look at the files before the next call."""
        self._looked = float("-inf")

    def _look(self) -> None:
        self._looked = self._now()
        if not self._settings.token:
            self._token = _first_bytes(self._settings.token_file)
        changed = _changed(self._settings.ca_file)
        if self._context is None or changed != self._ca_changed:
            try:
                self._context = self._made_context(changed)
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                if self._context is None:
                    words = words_of(error) if isinstance(error, OSError) else str(error)
                    raise EngineUnreachable(f"HP_K8S_CA_FILE {self._settings.ca_file}: {words}") from error
                log.warning("the cluster's certificate authorities cannot be read; the old ones are used")
            else:
                self._ca_changed = changed

    def _made_context(self, changed: int | None) -> ssl.SSLContext | bool:
        if not self._settings.api_server.startswith("https:"):
            return True
        if not self._settings.verify:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        return ssl.create_default_context(cafile=None if changed is None else self._settings.ca_file)


def _first_bytes(path: Path) -> str:
    """Return the token in a file, "" without one."""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_TOKEN).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _changed(path: Path) -> int | None:
    """When a file was changed last, None when there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
