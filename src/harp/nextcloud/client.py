"""The two questions that we ask Nextcloud: what is this ExApp (A 5.1), and who is this (A 5.2).

Every call is a GET built here: of the client's request, only credentials and address are passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote

from msgspec import Struct

from harp.errors import HarpError, PeerError, Unreachable
from harp.net.deadlines import Deadlines
from harp.net.turns import Turns
from harp.nextcloud.breaker import Attempt, Belief, Breaker
from harp.nextcloud.fair import FairQueue, QueueFull, WaitingCall
from harp.nextcloud.http import Dropped, Getter, NextcloudAnswer, SystemTrust, Unanswered
from harp.nextcloud.payloads import read_record, read_visitor
from harp.policy.decide import CONTROL
from harp.policy.exapp import ANONYMOUS, Level, RecordFact, Trouble, UnknownApp, Visitor, VisitorFact
from harp.policy.question import VisitorLogin
from harp.settings import Nextcloud
from harp.wire.http import Fields

RECORD_SIZE = 1024 * 1024  # bytes of an exapp-meta answer
VISITOR_SIZE = 64 * 1024  # bytes of a user-info answer
RECORD_CALLS = 8  # at once; scanners try many ids
RECORD_CALLS_OF_ONE = 2  # at once for one client address
VISITOR_CALLS = 100  # at once
VISITOR_CALLS_OF_ONE = 8  # at once for one client address
_CROWDED = Trouble("too many calls to Nextcloud are waiting")
SETTLE = 0.02  # seconds in which a refused password is counted, before the client's next one is sent
PROBE_LIMIT = 10.0  # seconds for a call that is to find out whether Nextcloud answers again
AGAIN = (0.05, 0.2, 0.5, 1.0, 2.0)  # seconds before each new attempt of a call that failed while others are answered
LONGEST_RETRY_AFTER = 300  # seconds

_KEY_REFUSED = b"Harp shared key is not valid"  # the controller's own 401: about the app or the key, not the visitor


class Seen(Struct, frozen=True):
    """The answer about a visitor."""

    fact: VisitorFact
    lasting: bool = False  # may be believed for the lifetime of a session
    app_refused: bool = False  # Nextcloud does not know the app, or not with this key


class NextcloudClient:
    """Asks one Nextcloud. No method raises because of Nextcloud: failures are answers."""

    def __init__(
        self,
        settings: Nextcloud,
        shared_key: str,
        now: Callable[[], float],
        banned: Callable[[str], float] = lambda _: 0.0,
        deadlines: Deadlines | None = None,
        turns: Turns | None = None,
        trust: SystemTrust | None = None,
    ) -> None:
        """`banned` returns for how many seconds a source (a client's ban key) will not be served."""
        self._timeout = settings.timeout
        self._now = now
        self._banned = banned
        self._base = f"{settings.url}/index.php/apps/app_api/harp/"
        self._getter = Getter(settings, shared_key, now, deadlines, turns, trust)
        self._records = FairQueue(RECORD_CALLS, RECORD_CALLS_OF_ONE)
        self._visitors = FairQueue(VISITOR_CALLS, VISITOR_CALLS_OF_ONE)
        self._record_turns: dict[str, WaitingCall] = {}  # that have not come
        self._breaker = Breaker(now)

    async def record(self, app_id: str, source: str = "") -> RecordFact:
        """Return what Nextcloud says of an ExApp, by its lower-cased id.

        `source` is the client who wants it, "" = HaRP.
        """
        target = f"exapp-meta?appId={quote(app_id, safe='')}"
        if app_id == CONTROL:  # a probe: it must not wait for others
            answer = await self._get(target, [], RECORD_SIZE, probe=True)
        else:
            answer = await self._in_turn(self._records, source, target, [], RECORD_SIZE, app_id)
        if isinstance(answer, Trouble):
            return answer
        match answer.status:
            case 200:
                try:
                    return read_record(app_id, answer.body)
                except ValueError as error:
                    return Trouble(f"Nextcloud's record of the ExApp {app_id} cannot be used: {error}")
            case 401:
                return UnknownApp(f"Nextcloud knows no ExApp {app_id} with this shared key")
            case 404:
                return UnknownApp(
                    "Nextcloud answers 404: is AppAPI enabled, and NC_INSTANCE_URL right?", no_appapi=True
                )
        return _trouble(answer)

    def also(self, app_id: str, source: str) -> None:
        """Another client wants a record that is already requested: its turn must not depend on the first one's line."""
        turn = self._record_turns.get(app_id)
        if turn is not None:
            with suppress(QueueFull):
                self._records.also(turn, source)

    async def visitor(self, app_id: str, login: VisitorLogin, address: str, source: str = "") -> Seen:
        """Return who logs in with `login` from a client's `address`."""
        told = (
            (b"x-forwarded-for", address.encode()),
            (b"cookie", login.cookie),
            (b"authorization", login.authorization),
        )
        headers = [(name, value) for name, value in told if value]
        target = f"user-info?appId={quote(app_id, safe='')}"
        answer = await self._in_turn(self._visitors, source, target, headers, VISITOR_SIZE)
        if isinstance(answer, Trouble):
            return Seen(answer)
        nobody = Visitor("", Level.PUBLIC, refused=True) if login.authorization else ANONYMOUS
        match answer.status:
            case 200:
                try:
                    visitor = read_visitor(answer.body)
                except ValueError as error:
                    return Seen(Trouble(f"Nextcloud's answer about the visitor cannot be used: {error}"))
                return Seen(visitor if visitor.user_id else nobody, lasting=True)
            case 401 if _KEY_REFUSED in answer.body:
                return Seen(ANONYMOUS, app_refused=True)
            case 401 | 403:
                return Seen(nobody)
            case status if 400 < status < 429:
                return Seen(ANONYMOUS)
        return Seen(_trouble(answer))

    async def close(self) -> None:
        """Give up all connections."""
        await self._getter.close()

    async def _in_turn(
        self, queue: FairQueue, source: str, target: str, headers: Fields, limit: int, app_id: str = ""
    ) -> NextcloudAnswer | Trouble:
        """Call when it is our turn. `app_id` is that of a record, which other clients may want meanwhile."""
        trouble = self._breaker.trouble()
        if trouble is not None:
            return trouble
        try:
            turn = queue.enter(source)
        except QueueFull:
            return _CROWDED
        if app_id:
            self._record_turns[app_id] = turn
        try:
            if not turn.ready.done():
                async with asyncio.timeout(self._timeout):
                    await turn.ready
            if all(self._banned(one) for one in turn.lines):
                return Trouble("the client was banned while the call to Nextcloud waited")
            return await self._get(target, headers, limit)
        except QueueFull:
            return _CROWDED
        except TimeoutError:
            return Trouble("Nextcloud is too slow for the number of calls that wait")
        finally:
            if any(name == b"authorization" for name, _ in headers):
                asyncio.get_running_loop().call_later(SETTLE, queue.leave, turn)
            else:
                queue.leave(turn)
            if app_id:
                del self._record_turns[app_id]

    async def _get(self, target: str, headers: Fields, limit: int, *, probe: bool = False) -> NextcloudAnswer | Trouble:
        """Call, with as many attempts as it takes while others are answered."""
        until = self._now() + self._timeout
        for delay in (*AGAIN, None):
            entered = self._breaker.enter(probe=probe)
            if isinstance(entered, Trouble):
                return entered
            attempt = entered
            try:
                answer = await self._attempted(target, headers, limit, probe=probe)
            except (Unreachable, Dropped, Unanswered) as error:
                failure: HarpError = error
            else:
                self._breaker.answered()
                return answer
            finally:
                self._breaker.leave(attempt)
            if delay is None or isinstance(failure, Unanswered) or not self._breaker.is_lively():
                break
            await asyncio.sleep(delay)
            if self._now() > until:
                break
        return self._given_up(failure, attempt)

    async def _attempted(self, target: str, headers: Fields, limit: int, *, probe: bool) -> NextcloudAnswer | Trouble:
        timeout = min(self._timeout, PROBE_LIMIT) if probe else self._timeout
        try:
            return await self._getter.get(self._base + target, headers, limit, timeout)
        except (Dropped, Unanswered):
            raise
        except PeerError as error:
            return Trouble(str(error))

    def _given_up(self, failure: HarpError, attempt: Attempt) -> Trouble:
        """Return the failure of a call without an answer. Others get it as well, unless they are answered."""
        trouble = Trouble(str(failure))
        if not isinstance(failure, Dropped):
            hangs = isinstance(failure, Unanswered) or isinstance(failure.__cause__, TimeoutError)
            if self._breaker.failed(Belief.HANGING if hangs else Belief.REFUSING, trouble, attempt.began):
                self._records.dismiss()
                self._visitors.dismiss()
        return trouble


def _trouble(answer: NextcloudAnswer) -> Trouble:
    """Return the failure that a status stands for."""
    if answer.maintenance:
        reason = "Nextcloud is in maintenance mode"
    elif answer.status == 400:
        reason = "Nextcloud answers 400: is the host of NC_INSTANCE_URL among its trusted_domains?"
    elif answer.status == 429:
        reason = "Nextcloud throttles this client (429)"
    else:
        reason = f"Nextcloud answers {answer.status}"
    if answer.retry_after.isascii() and answer.retry_after.isdigit():
        return Trouble(reason, min(int(answer.retry_after[:9]), LONGEST_RETRY_AFTER))
    return Trouble(reason)
