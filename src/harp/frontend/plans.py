"""Decisions that are asked for again and again, kept for as long as nothing can have changed."""

from __future__ import annotations

from msgspec import Struct

from harp.net.deadlines import Deadlines
from harp.policy.paths import CACHED_PATH
from harp.policy.question import Question
from harp.policy.verdict import Forward
from harp.proxy.forward import Hop

CAPACITY = 4096  # plans


class Plan(Struct, frozen=True):
    """A verdict, and what follows from it for every such request."""

    verdict: Forward
    hop: Hop
    identity: bytes  # the header lines that the ExApp trusts

    def __repr__(self) -> str:
        return f"Plan({self.verdict!r})"


class Plans:
    """Plans by question. They live until the next tick of the clock or the next version of the facts.

    So a session or a record is believed for at most one tick longer than it should be, and a change at once. What is
    made from an older version than the one that is asked for is not kept.
    """

    def __init__(self, deadlines: Deadlines, capacity: int = CAPACITY) -> None:
        self._deadlines = deadlines
        self._capacity = capacity
        self._made = deadlines.now
        self._version = 0
        self._plans: dict[Question, Plan] = {}

    def find(self, question: Question, version: int) -> Plan | None:
        """The plan for this question, if there is one that was made from this version of the facts."""
        if version != self._version or self._deadlines.now != self._made:
            self._plans.clear()
            self._version, self._made = version, self._deadlines.now
            return None
        return self._plans.get(question)

    def keep(self, question: Question, version: int, plan: Plan) -> None:
        """Keep what was made from this version of the facts, just now."""
        if (
            version == self._version
            and self._deadlines.now == self._made
            and len(question.path) <= CACHED_PATH
            and len(self._plans) < self._capacity
        ):
            self._plans[question] = plan
