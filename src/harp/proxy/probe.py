"""A heartbeat of our own, for tunnels that keep silent.

frpc up to 0.67 keeps a stream open in silence when it cannot connect to the ExApp (F 5.6). Until a tunnel has carried
its first answer, silence is checked before it is believed.
"""

from __future__ import annotations

from harp.errors import Unreachable
from harp.net.targets import Target
from harp.proxy.upstreams import Upstreams
from harp.wire.http import Fields
from harp.wire.responses import ResponseHead

FIRST_BYTE = 10.0  # seconds of silence
PROBE = b"GET /heartbeat HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
PROBE_LIMIT = 10.0  # seconds


class Probe:
    """Asks an ExApp behind a tunnel for its heartbeat: any answer at all proves that the tunnel has an end."""

    def __init__(self, upstreams: Upstreams, target: Target) -> None:
        self._upstreams = upstreams
        self._target = target

    async def run(self) -> None:
        try:
            connection = await self._upstreams.connect(self._target)
        except Unreachable:
            return
        connection.send(self, PROBE, bodyless=False, complete=True, limit=PROBE_LIMIT)

    def on_head(self, head: ResponseHead, length: int | None, data: bytes, end: bool) -> None:
        self._upstreams.answered(self._target)

    def on_interim(self, head: ResponseHead) -> None: ...

    def on_upgrade(self, head: ResponseHead, data: bytes) -> None: ...

    def on_data(self, data: bytes) -> None: ...

    def on_end(self, trailers: Fields) -> None: ...

    def on_eof(self) -> None: ...

    def on_silence(self) -> float | None:
        return None

    def on_lost(self, reason: str, *, status: int, silent: bool) -> None: ...

    def on_blocked(self) -> None: ...

    def on_drained(self) -> None: ...
