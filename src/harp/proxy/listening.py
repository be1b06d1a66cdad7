"""Does anything listen behind a tunnel?

frpc up to 0.67 keeps a stream open in silence when it cannot connect to the ExApp (F 5.6), so a request may wait for an
answer that nobody will ever give. A probe settles it, without a word to the ExApp: a stream that is closed at once.
When frpc has connected it closes its side as well, within a round trip; when it has not, nothing comes back. A busy
ExApp passes, because its system accepts connections for it.

Streams and probes are numbered in the order they are opened. A stream with a number between a probe that failed and
one that was answered may have reached the ExApp or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from itertools import count
from typing import cast
from weakref import ref

import structlog

from harp.errors import Unreachable
from harp.net.deadlines import NEVER, Deadlines
from harp.net.ports import Offer

FIRST_SILENCE = 0.75  # seconds until the first probe, when nothing is known of the tunnel
SILENCE = 2.0  # seconds, when something listened the last time
STEP = 0.25  # seconds between two probes, and two looks at what they have brought
PROBE_LIMIT = 3.0  # seconds for the answer to a probe
MISSES = 2  # probes in a row that fail until nothing listens any more

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Verdict(Enum):
    """What is known of one stream."""

    REACHED = auto()  # something listened when it was opened, and after that
    DOUBTFUL = auto()  # something listens now; whether it did when the stream was opened is not known
    LOST = auto()  # nothing listened
    OPEN = auto()  # not known yet


class Listening:
    """What is known of the service behind one offer. It does not keep the offer, by which it is found, alive."""

    def __init__(
        self, offer: Offer, deadlines: Deadlines, spawn: Callable[[Coroutine[None, None, None]], object]
    ) -> None:
        self._offer = ref(offer)
        self._name = offer.name
        self._deadlines = deadlines
        self._spawn = spawn
        self._numbers = count(1)
        self._up_from = 0  # number of the first stream that found it listening; 0 = it is not known to listen
        self._confirmed = 0  # of the last one
        self._down_at = 0  # of the last one that did not
        self._misses = 0
        self._pending: dict[int, float] = {}  # probes under way, with the time of their start
        self._next_probe = 0.0

    def __repr__(self) -> str:
        state = f"listens since {self._up_from}" if self._up_from else "not known to listen"
        return f"<Listening {self._name}: {state}, {len(self._pending)} probes>"

    @property
    def first_silence(self) -> float:
        """Seconds of silence on a new stream until `verdict` should be asked for."""
        return SILENCE if self._up_from else FIRST_SILENCE

    def opened(self) -> int:
        """The number of a new stream."""
        return next(self._numbers)

    def heard(self, number: int) -> None:
        """A stream has brought an answer."""
        self._misses = 0
        if number > self._down_at:
            self._up_from = min(self._up_from or number, number)
        self._confirmed = max(self._confirmed, number)

    def verdict(self, number: int) -> Verdict:
        """What is known of a silent stream. Probes when that is not enough: ask again after STEP."""
        if self._down_at > number:
            return Verdict.DOUBTFUL if self._up_from else Verdict.LOST
        if self._up_from and self._confirmed > number:
            return Verdict.REACHED if self._up_from <= number else Verdict.DOUBTFUL
        if self._deadlines.now >= self._next_probe:
            self._next_probe = self._deadlines.now + STEP
            self._spawn(self._probe(next(self._numbers)))
        return Verdict.OPEN

    def missed(self, number: int) -> bool:
        """Is it certain that a stream has not reached the service?"""
        return self._down_at > number

    async def _probe(self, number: int) -> None:
        offer = self._offer()
        if offer is None:
            return
        self._pending[number] = self._deadlines.now
        try:
            await offer.connect(lambda: _Probe(self, number, self._deadlines))
        except Unreachable:  # the tunnel itself is away or slow: that is no news of the service
            self._pending.pop(number, None)

    def answered(self, number: int) -> None:
        """The probe came back. Others that were sent before it and did not have met nobody."""
        started = self._pending.pop(number, None)
        if started is None:
            return
        for older, begun in list(self._pending.items()):
            if older < number and begun < started:
                del self._pending[older]
                self._down(older)
        self.heard(number)

    def failed(self, number: int) -> None:
        """The probe did not come back."""
        if self._pending.pop(number, None) is None:
            return
        self._misses += 1
        if self._misses >= MISSES:
            if self._misses == MISSES:
                log.warning("nothing listens behind a tunnel", name=self._name, see="frpc's log says why")
            self._down(number)

    def _down(self, number: int) -> None:
        if number > self._down_at:
            self._down_at = number
            if self._up_from <= number:
                self._up_from = 0


class _Probe(asyncio.Protocol):
    """A stream that is closed at once, to see whether the other side closes it as well."""

    def __init__(self, listening: Listening, number: int, deadlines: Deadlines) -> None:
        self._listening = listening
        self._number = number
        self._deadlines = deadlines
        self._transport: asyncio.Transport | None = None
        self.deadline = NEVER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.deadline = self._deadlines.now + PROBE_LIMIT
        self._deadlines.watch(self)
        self._transport.write_eof()

    def data_received(self, data: bytes) -> None:
        self._listening.answered(self._number)

    def eof_received(self) -> None:
        self._listening.answered(self._number)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadlines.drop(self)
        self._listening.answered(self._number)

    def expired(self) -> None:
        """Timed: nothing came back."""
        self.deadline = NEVER
        self._deadlines.drop(self)
        self._listening.failed(self._number)
        if self._transport is not None:
            self._transport.abort()
