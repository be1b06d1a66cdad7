"""What decides about the requests of a client's connection: the gate, or that of the admin listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from harp.frontend.exchange import Exchange
from harp.net.deadlines import Deadlines
from harp.net.turns import Turns
from harp.settings import Limits, Timeouts
from harp.wire.requests import RequestHead, RequestReader

if TYPE_CHECKING:
    from harp.frontend.connection import ClientConnection


class Decider(Protocol):
    """What decides about requests and keeps the books."""

    deadlines: Deadlines
    turns: Turns
    limits: Limits
    timeouts: Timeouts
    reader: RequestReader
    draining: bool
    inspected: bool  # somebody looks at requests: heads of answers are kept until they have ended

    patience: float  # seconds from `handle` to `attach`, for what has to be asked

    def begin(self, connection: ClientConnection, head: RequestHead | None, last: Exchange | None) -> Exchange:
        """A request has arrived, or what is not one: the record for it. `last` is the connection's record before."""

    def handle(self, connection: ClientConnection, exchange: Exchange) -> None:
        """Sooner or later `attach` a handler to the request or `refuse` it."""

    def finished(self, exchange: Exchange) -> None:
        """The exchange is over."""

    def opened(self, connection: ClientConnection) -> str | None:
        """A connection was made; a text refuses it."""

    def closed(self, connection: ClientConnection) -> None:
        """A connection has ended."""
