"""The claims of one tunnel: decided one after another, then held (F 5.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from harp.net.tasks import Tasks
from harp.policy.claims import ClaimEvent, ClaimState
from harp.tunnel.server.claims import Claim, ClaimRefused, Claims, ClaimTaken, Holder
from harp.wire.frp import NewProxy

WAITING = 8  # claims of one tunnel that are not decided yet; it can have one

log = structlog.get_logger()

Check = Callable[[str, str, int, str], Awaitable[str]]
"""(token of the login, claimed name, claimed port, client address) -> why the client cannot have it, "" when it can."""


class Answers(Protocol):
    """Who answers the client."""

    def granted(self, claim: Claim) -> None:
        """`claim` is held."""

    def granted_again(self, claim: Claim) -> None:
        """`claim` was held already; the client has missed the answer."""

    def refused(self, request: NewProxy, reason: str) -> None:
        """The client cannot have what it asks for."""


class ClaimQueue:
    """Decides about the claims of one tunnel in the order they came, and holds what was granted.

    Deciding may take a while: `check` may ask Nextcloud, and a tunnel that holds the claim is asked whether it
    is alive.
    """

    def __init__(
        self, tunnel: Holder, claims: Claims, answers: Answers, check: Check | None, *, token: str, address: str
    ) -> None:
        self.held: dict[str, Claim] = {}
        self._tunnel = tunnel
        self._claims = claims
        self._answers = answers
        self._check = check
        self._token = token
        self._address = address
        self._waiting: dict[str, Claim] = {}  # in order; the first is being decided
        self._tasks = Tasks()
        self._work: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ClaimQueue {[*self.held.values(), *self._waiting.values()]}>"

    def add(self, request: NewProxy) -> None:
        """Decide about `request` when its turn comes."""
        if request.proxy_name in self._waiting:
            return  # repeated; the answer is on its way
        known = self.held.get(request.proxy_name)
        if known is not None and known.port == request.remote_port:
            self._answers.granted_again(known)
        elif len(self._waiting) >= WAITING:
            self._answers.refused(request, "exceed the max_ports_per_client")
        else:
            self._waiting[request.proxy_name] = Claim(request, self._tunnel, self._claims)
            self._go_on()

    def withdraw(self, name: str) -> Claim | None:
        """Give a claim back, whatever state it is in; what was held is returned."""
        claim = self._waiting.pop(name, None)
        if claim is not None:
            if claim.state is not ClaimState.QUEUED and self._work is not None:
                self._work.cancel()
                self._work = None
            claim.move(ClaimEvent.RELEASE)
            self._go_on()
            return None
        claim = self.held.pop(name, None)
        if claim is not None:
            self._claims.release(claim)
        return claim

    def close(self) -> None:
        """Give everything back."""
        if self._work is not None:
            self._work.cancel()
        waiting, self._waiting = self._waiting, {}
        for claim in waiting.values():
            claim.move(ClaimEvent.RELEASE)
        for claim in self.held.values():
            self._claims.release(claim)
        self.held.clear()

    def _go_on(self) -> None:
        if self._waiting and (self._work is None or self._work.done()):
            self._work = self._tasks.start(self._decide_all())

    async def _decide_all(self) -> None:
        while self._waiting:
            claim = next(iter(self._waiting.values()))
            try:
                await self._decide(claim)
            except ClaimRefused as refused:
                refusal = str(refused)
            except Exception:  # a bug must not leave the client without an answer
                log.exception("a claim could not be decided", claim=repr(claim))
                refusal = "internal error; see the log of HaRP"
            else:
                refusal = ""
            if self._waiting.get(claim.name) is not claim:  # withdrawn meanwhile, or the tunnel is closed
                return
            del self._waiting[claim.name]
            if refusal:
                claim.move(ClaimEvent.REFUSE)
                self._answers.refused(claim.request, refusal)
            else:
                self.held[claim.name] = claim
                self._answers.granted(claim)
        self._work = None

    async def _decide(self, claim: Claim) -> None:
        """Grant `claim`, or raise ClaimRefused. A dead holder gives way; another may hold the rest."""
        self._claims.examine(claim.request, len(self.held))
        claim.move(ClaimEvent.CHECK)
        if self._check is not None:
            objection = await self._check(self._token, claim.name, claim.port, self._address)
            if objection:
                raise ClaimRefused(objection)
        while True:
            try:
                self._claims.grant(claim)
            except ClaimTaken as taken:
                claim.move(ClaimEvent.TAKEN)
                holder = taken.holder.tunnel
                if await holder.alive():
                    raise
                holder.close("it does not answer, and its port is wanted by another client", abort=True)
            else:
                return
