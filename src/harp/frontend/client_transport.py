"""The transport of a client's connection: what waits to be written, why nothing is read, and how it ends."""

from __future__ import annotations

import asyncio
from typing import cast

from harp.net.deadlines import NEVER, Deadlines
from harp.net.entrance import address_of
from harp.net.reset import reset
from harp.net.turns import Turns
from harp.settings import Timeouts
from harp.wire.ends import How

HIGH_WATER = 128 * 1024  # bytes waiting for the client before the producer is told to pause
LINGER_TIME = 2.0  # seconds to swallow a body that nobody wants, so that its sender sees our answer

# Why nothing is read from the transport.
TURN, BODY, FULL = 1, 2, 4  # others are to be served first; the handler wants no body; enough waits in the buffer
_WHY = {TURN: "others come first", BODY: "the handler pauses", FULL: "enough waits"}


class ClientTransport:
    """See the module. `deadline` is when whatever the connection waits for takes too long, see `net.deadlines`."""

    __slots__ = (
        "__weakref__",
        "_deadlines",
        "_held",
        "_timeouts",
        "_turns",
        "_unsent",
        "blocked",
        "deadline",
        "peer",
        "secure",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, deadlines: Deadlines, turns: Turns, timeouts: Timeouts, *, secure: bool) -> None:
        self.secure = secure
        self.peer = ""  # address of the other end, as text; "" on unix sockets
        self.deadline = NEVER
        self.blocked = False  # enough waits to be written
        self._deadlines = deadlines
        self._turns = turns
        self._timeouts = timeouts
        self._held = 0  # why nothing is read: TURN, BODY, FULL
        self._unsent = 0

    def _describe_transport(self) -> list[str]:
        """What is unusual about it, for people."""
        held = " and ".join(text for reason, text in _WHY.items() if self._held & reason)
        return [*(["answers unread"] if self.blocked else []), *([f"not read: {held}"] if held else [])]

    def _use(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.peer = address_of(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._turns.view

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self._turns.memory[:nbytes].tobytes())

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client."""
        raise NotImplementedError

    def turn_came(self) -> None:
        """Reader: all others have been served."""
        raise NotImplementedError

    # Reading

    def _stand_in_line(self) -> None:
        """Let others be served before the rest of what this client has sent."""
        self._turns.join(self)
        self._hold(TURN)

    def _hold(self, reason: int) -> None:
        if not self._held:
            self.transport.pause_reading()
        self._held |= reason

    def _release(self, reasons: int) -> None:
        if self._held:
            self._held &= ~reasons
            if not self._held and not self.transport.is_closing():
                self.transport.resume_reading()

    # Writing

    def _note_blocked(self) -> None:
        """Enough waits: remember how much, so that a client that reads slowly is told from one that does not."""
        self.blocked = True
        self._unsent = self.transport.get_write_buffer_size()

    def _reads_slowly(self) -> bool:
        """Has the client read anything since it was looked at last?"""
        unsent = self.transport.get_write_buffer_size()
        less = unsent < self._unsent
        if less:
            self._unsent = unsent
        return less

    # The end

    def _end_transport(self, how: How) -> None:
        """End the transport."""
        timeouts, now = self._timeouts, self._deadlines.now
        if how is How.RESET:
            self.deadline = NEVER
            reset(self.transport)
        elif how is How.LINGER:
            self.deadline = now + LINGER_TIME
            self.transport.write_eof()
            self._release(TURN | BODY | FULL)
        else:
            self.deadline = now + timeouts.client
            self.transport.close()
