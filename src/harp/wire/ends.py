"""How connections and streams end: one verb everywhere, `end(how, note)`, callable in every state, once or twice."""

from __future__ import annotations

from enum import Enum, auto


class How(Enum):
    """How a connection ends."""

    GRACEFUL = auto()  # after everything written has left
    LINGER = auto()  # the same, but the client may finish speaking: a reset would take the answer away (RFC 9112 9.6)
    RESET = auto()  # at once, so that the client sees that something is missing
