"""What is examined: the running HaRP, as the doctor needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from harp.logs import RecentWarning
from harp.policy.exapp import RecordFact
from harp.settings import Settings
from harp.status.doctor.inside import Room
from harp.status.snapshot import BanLine, Snapshot


class Examined(Protocol):
    """A running HaRP: `harp.examined.ExaminedHarp`."""

    @property
    def settings(self) -> Settings:
        """The settings in effect."""

    @property
    def room(self) -> Room:
        """What the file descriptors allow."""

    @property
    def key_doubted(self) -> str:
        """The ExApp that was asked for when Nextcloud knew none with our key, "" when it ever did."""

    def snapshot(self) -> Snapshot:
        """Return every fact."""

    def certificate_fixes(self) -> Mapping[str, str]:
        """Return what to do about certificates that end, by file."""

    def private_bans(self) -> Sequence[BanLine]:
        """Bans of addresses that may be reverse proxies."""

    def recent_warnings(self, within: float) -> Sequence[RecentWarning]:
        """Warnings of the last seconds."""

    def named_engines(self) -> Mapping[int, str]:
        """Engines that were added, by port. Reads a file. Raises HarpError."""

    def tunnel_names(self) -> Sequence[str]:
        """Lower-cased names of tunnels on ports of ExApps: most likely ids of ExApps."""

    async def probe_nextcloud(self) -> str:
        """Ask Nextcloud now; why it cannot be asked, or ""."""

    async def ask_record(self, app_id: str) -> RecordFact:
        """Return what Nextcloud says of an ExApp now."""

    async def ask_engine(self, port: int, patience: float) -> tuple[str, Sequence[str]]:
        """Version with API range, and what it has for GPUs. Raises EngineError."""

    async def knock(self, app_id: str, host: str, port: int) -> str:
        """Ask an ExApp for its heartbeat: the first line of its answer. Raises HarpError, TimeoutError."""

    def begin_walk(self) -> str:
        """Return the nonce of a walk through the public URL."""

    def end_walk(self, nonce: str) -> None:
        """It is over."""
