"""Decisions that are asked for again and again, kept for as long as nothing can have changed.

What `decide` says of a path depends on its route, and on nothing else of it. So a decision is kept for whoever asks,
the spelling of what stands before the ExApp's part, and the route: a thousand paths of one caller are one or two plans.
"""

from __future__ import annotations

from msgspec import Struct

from harp.frontend.traffic import Traffic
from harp.net.deadlines import Deadlines
from harp.policy.bans import Denial
from harp.policy.paths import ExAppPath
from harp.policy.question import Asker
from harp.policy.routes import RouteMatch, RouteTable
from harp.policy.verdict import Forward
from harp.proxy.forward import Hop
from harp.recent import remember

CAPACITY = 8192  # plans
LIFETIME = 5.0  # seconds at most
LONGEST = 1024  # bytes of a path whose plan is kept


class Plan(Struct, frozen=True):
    """A verdict, and what follows from it for every such request. Its target is that of the first one."""

    verdict: Forward
    hop: Hop
    identity: bytes  # the header lines that the ExApp trusts, and its prefix
    traffic: Traffic  # where requests are counted
    version: int  # of the facts
    until: float  # when it has to be made again, by the clock of deadlines

    def __repr__(self) -> str:
        return f"Plan({self.verdict!r})"


class Plans:
    """Plans by asker, prefix and route. They live until their time or the next version of the facts.

    So a session is believed for at most one tick longer than it should be, and a change at once. What is made from an
    older version than the one that is asked for is not kept.
    """

    def __init__(self, deadlines: Deadlines, capacity: int = CAPACITY) -> None:
        self._deadlines = deadlines
        self._capacity = capacity
        self._version = 0
        self._tables: dict[str, RouteTable] = {}  # of the ExApps that have plans
        self._plans: dict[tuple[Asker, bytes, RouteMatch | Denial], Plan] = {}

    def until(self, lasting: float) -> float:
        """When a plan has to be made again whose facts will do for so long."""
        return min(lasting, self._deadlines.now + LIFETIME) if self._capacity else 0.0

    def find(self, asker: Asker, path: ExAppPath, version: int) -> Plan | None:
        """The plan for this request, if there is one that was made from this version of the facts."""
        if version != self._version:
            self._version = version
            self.forget()
            return None
        table = self._tables.get(path.app_id)
        if table is None or not table.ready or path.internal or path.stripped:
            return None
        plan = self._plans.get((asker, path.prefix, table.match(path)))
        if plan is None or self._deadlines.now >= plan.until:
            return None
        return plan

    def keep(self, asker: Asker, path: ExAppPath, plan: Plan) -> None:
        """Keep what was made just now."""
        verdict, version = plan.verdict, plan.version
        if version != self._version or verdict.route is None or path.stripped or not self._capacity:
            return
        if len(path.prefix) + len(path.target) > LONGEST:  # a plan holds both
            return
        table = verdict.record.table
        remember(self._tables, path.app_id, table, self._capacity)
        remember(self._plans, (asker, path.prefix, table.match(path)), plan, self._capacity)

    def forget(self) -> None:
        """Forget all plans; what is asked for again is decided again."""
        self._tables.clear()
        self._plans.clear()

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._plans)
