"""Requests to an ExApp with several replicas: each goes to the one that has the fewest under way.

Connections are kept for each replica by itself, and the replica is chosen before one of them is looked for. Where none
of them answers, the address of their Service is tried. Nothing here is loaded unless a cluster lists replicas.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable

import structlog

from harp.errors import Unreachable
from harp.net.dial import ATTEMPT
from harp.net.targets import ExAppAddress
from harp.policy.kubernetes_endpoints import Endpoint
from harp.proxy.forward import IDEMPOTENT, Forwarding, Hop
from harp.proxy.upstream import Upstream
from harp.wire.responses import ResponseHead

DOUBT = 5.0  # seconds for which a replica that did not answer is chosen only if there is no other
COOKIE = b"harp-replica"

_marked = re.compile(rb"(?:^|;)[ \t]*" + COOKIE + rb"=([0-9a-f]{16})[ \t]*(?:;|$)").search

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Replica:
    """One pod of an ExApp."""

    __slots__ = ("busy", "doubted", "mark", "target")

    def __init__(self, target: ExAppAddress, mark: bytes) -> None:
        self.target = target
        self.mark = mark  # that clients get, for their next requests to come here
        self.busy = 0  # requests under way
        self.doubted = 0.0  # until when, by the clock of deadlines

    def __repr__(self) -> str:
        return f"<Replica {self.target.host}:{self.target.port}, {self.busy} under way>"


class Replicas:
    """The replicas of one ExApp that are ready. `sticky`: a client's requests go to the same one."""

    def __init__(self, name: str) -> None:
        self.several = self.sticky = False
        self._name = name
        self._ready: dict[tuple[ExAppAddress, bytes], Replica] = {}
        self._turn = 0

    def update(self, endpoints: Iterable[Endpoint], *, sticky: bool) -> None:
        """Take these as the ready ones; those that stay keep their counts."""
        known, self._ready, self.sticky = self._ready, {}, sticky
        for one in endpoints:
            key = ExAppAddress(one.host, one.port), one.mark.encode()
            self._ready[key] = known.get(key) or Replica(*key)
        self.several = len(self._ready) > 1
        if known.keys() != self._ready.keys():
            log.info("replicas found", exapp=self._name, ready=len(self._ready))

    def choose(self, mark: bytes, now: float, tried: Collection[Replica] = ()) -> Replica | None:
        """The one with this mark, else that with the fewest requests, and of equal ones the next in turn."""
        left = [one for one in self._ready.values() if one not in tried]
        trusted = [one for one in left if one.doubted <= now] or left
        if not trusted:
            return None
        if mark:
            for one in trusted:
                if one.mark == mark:
                    return one
        self._turn += 1
        first = self._turn % len(trusted)
        return min(trusted[first:] + trusted[:first], key=lambda one: one.busy)

    def spread(self, forwarding: Forwarding, prefix: bytes) -> Spread:
        """Forward to one of them what was to go to their Service. `prefix` is where clients see the ExApp."""
        spread = Spread(
            forwarding._upstreams,
            forwarding._downstream,
            forwarding._request,
            forwarding._hop,
            forwarding._head,
            forwarding._silence,
        )
        spread.replicas, spread.prefix = self, prefix
        return spread


class Spread(Forwarding):
    """One exchange with the replica that is chosen for it. `leave` it when it is over."""

    replicas: Replicas | None = None
    prefix: bytes = b""
    _service: Hop | None = None
    _replica: Replica | None = None
    _mark: bytes = b""  # that the client has sent
    _tried: tuple[Replica, ...] = ()

    def start(self) -> None:
        assert self.replicas is not None
        self._service = self._hop
        if self.replicas.sticky and (cookies := self._request.get(b"cookie")) and (found := _marked(cookies)):
            self._mark = found[1]
        self._choose()
        super().start()

    def leave(self) -> None:
        """Count this exchange no longer."""
        if self._replica is not None:
            self._replica.busy -= 1
            self._replica = None

    def _choose(self) -> None:
        """Go to another replica than before, or to the Service when there is none."""
        assert self.replicas is not None
        assert self._service is not None
        self.leave()
        replica = self._replica = self.replicas.choose(self._mark, self._upstreams.deadlines.now, self._tried)
        if replica is None:
            self._hop = self._service
            return
        replica.busy += 1
        self._tried += (replica,)
        self._hop = Hop(replica.target, self._service.name, self._service.location_prefix)

    def _connect(self) -> None:
        if self._retried and not self._mark:  # its connection has closed, so it may be on its way out
            self._choose()
        super()._connect()

    async def _reach(self) -> Upstream:
        while (replica := self._replica) is not None:
            try:
                async with asyncio.timeout(ATTEMPT):
                    return await self._upstreams.dial(replica.target)
            except (Unreachable, TimeoutError) as error:
                log.info(
                    "replica not reached",
                    exapp=self._hop.name,
                    host=replica.target.host,
                    reason=str(error) or "no answer",
                )
                replica.doubted = self._upstreams.deadlines.now + DOUBT
                self._choose()
        return await self._upstreams.connect(self._hop.target)

    def _may_retry(self, connection: Upstream | None) -> bool:
        """Also on a new connection: the replica has gone, and another one is there."""
        if self._retried or self._sent_body or connection is None:
            return False
        return self._request.method in IDEMPOTENT

    # The cookie

    def on_answer(self, status: int, start: bytes, data: bytes) -> None:
        super().on_answer(status, start + self._cookie(), data)

    def on_head(self, head: ResponseHead, length: int, data: bytes, end: bool) -> None:
        head.start += self._cookie()
        super().on_head(head, length, data, end)

    def on_upgrade(self, head: ResponseHead, data: bytes) -> None:
        head.start += self._cookie()
        super().on_upgrade(head, data)

    def _cookie(self) -> bytes:
        """The header line that has the client come back to this replica, if it would not anyway."""
        replica = self._replica
        if replica is None or self.replicas is None or not self.replicas.sticky or replica.mark == self._mark:
            return b""
        path = self.prefix if self.prefix and b";" not in self.prefix else b"/"
        return b"set-cookie: %b=%b; Path=%b; HttpOnly; SameSite=Lax\r\n" % (COOKIE, replica.mark, path)
