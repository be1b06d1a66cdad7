"""The seam between a client's connection and whatever answers its request.

One exchange is one request and its response. The frontend owns the client's side (`Downstream`) and speaks the client's
version of HTTP; a `Handler` owns the other side. Neither awaits: both are driven by callbacks, and back-pressure is
passed on by pausing the side that produces.
"""

from __future__ import annotations

from typing import Protocol

from harp.wire.ends import How
from harp.wire.http import Fields


class Handler(Protocol):
    """Gets the request's body and follows the client. Attached to a Downstream for one exchange."""

    def body(self, data: bytes) -> None:
        """Bytes of the request body; after `Downstream.upgrade`, bytes of the upgraded stream."""

    def body_end(self, trailers: Fields) -> None:
        """The request is complete; after an upgrade, the client has closed its sending side."""

    def blocked(self) -> None:
        """The client reads slower than we send: produce no more until `drained`."""

    def drained(self) -> None:
        """The client may be sent to again."""

    def gone(self, reason: str) -> None:
        """The client's connection ends, whoever wanted it: clean up, nothing can be sent any more."""

    def drain(self) -> bool:
        """HaRP is stopping: end an upgraded stream, politely if its protocol has a way. True when that was done."""


class Downstream(Protocol):
    """The client of one exchange. After the response has ended the handler must not call it again."""

    blocked: bool  # between Handler.blocked and Handler.drained

    def first_body(self) -> tuple[bytes, bool, Fields]:
        """Take what has come of the request body with the head: payload, whether that is all of it, and its trailers.

        The rest flows after `resume_body`. When what has come is no body, Handler.gone follows before the return.
        """

    def resume_body(self) -> None:
        """Let the request body flow. It starts paused."""

    def pause_body(self) -> None:
        """Stop the flow of the request body."""

    def send_interim(self, response: bytes) -> None:
        """Pass on a whole interim response (1xx but 101)."""

    def send_head(self, status: int, start: bytes, length: int, data: bytes, end: bool) -> None:
        """Begin the response, with the first piece of its body in the same write.

        `start` are the status line and complete header lines, among them Content-Length where the length is known, and
        never Transfer-Encoding or X-Request-Id. `length` is the body's in bytes, or CHUNKED, UNTIL_CLOSE or NO_BODY.
        `end`: `data` is the whole body.
        """

    def send_answer(self, status: int, start: bytes, data: bytes) -> None:
        """Answer with a whole response, as `send_head` with the length of `data` and `end`."""

    def send_body(self, data: bytes) -> None:
        """More of the body; never empty."""

    def send_end(self, trailers: Fields) -> None:
        """The body is complete."""

    def end(self, how: How, note: str = "") -> None:
        """End the connection. Callable in every state, once or twice; Handler.gone follows if there is an exchange.

        GRACEFUL in the middle of an answer leaves it short, and the client sees that. LINGER ends an upgraded stream.
        """

    def refuse(self, status: int, reason: str, retry_after: int | None = None, *, unreachable: bool = False) -> None:
        """Answer with an error of our own, instead of send_head. `unreachable`: the target's address did not answer."""

    def waited(self, what: str, seconds: float) -> None:
        """Note for the records that the request had to wait for a "tunnel", or to "connect"."""

    def upgrade(self, start: bytes, data: bytes) -> None:
        """Answer with this 101, which lacks only its empty line, and become a raw stream in both directions.

        Its bytes go through send_body and Handler.body.
        """

    def finish(self) -> None:
        """Close our sending side of an upgraded stream."""
