"""The record of one request and its answer, from arrival to the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harp.frontend.caller import Caller
from harp.frontend.plans import Plan
from harp.frontend.traffic import Traffic
from harp.policy.bans import Denial
from harp.policy.paths import ExAppPath
from harp.policy.verdict import Verdict
from harp.wire.requests import RequestHead

if TYPE_CHECKING:
    from harp.proxy.replicas import Spread

NO_ID = b"-"  # of requests that no log has: those of the admin listener


class Exchange(Struct, eq=False):
    """Made by the gate, kept by the connection while it answers, and handed back when it is over.

    The gate writes what it learns of the request, the connection what becomes of the answer.
    """

    head: RequestHead | None  # None: what has arrived is not a request
    request_id: bytes  # for people who read logs
    address: str  # the true client's, as far as we know
    caller: Caller | None = None
    path: ExAppPath | Denial | None = None  # as it is read
    trusted: bool = False  # the caller may read why something failed, with hosts, ports and patterns
    started: float = 0.0  # monotonic time of arrival
    peer: str = ""  # the other end of the connection
    plan: Plan | None = None  # what was decided, if that may count for the next request as well
    verdict: Verdict | None = None
    traffic: Traffic | None = None  # where the request is counted, if that is known already
    spread: Spread | None = None  # what counts it for one of several replicas

    status: int = 0  # 0 = the answer has not begun
    received: int = 0  # bytes of the request's body
    sent: int = 0  # bytes of the answer's
    refused: bool = False  # the answer is an error of our own
    unreachable: bool = False  # the refusal says that the target could not be reached
    note: str = ""  # what went wrong, if anything
    began: float = 0.0  # monotonic time of the answer's first byte; 0 = it went out whole, or not at all
    waits: dict[str, float] | None = None  # seconds by what was waited for; most requests wait for nothing
    answer: bytes = b""  # the answer's head, while somebody inspects requests
    trace: object = None  # of the tracer, if there is one

    def waited(self, what: str, seconds: float) -> None:
        """Note a wait: "nextcloud", "tunnel" or "connect"."""
        if self.waits is None:
            self.waits = {}
        self.waits[what] = self.waits.get(what, 0.0) + seconds

    def __repr__(self) -> str:
        return f"Exchange({self.request_id.decode('latin-1')}, {self.head!r}, {self.status})"
