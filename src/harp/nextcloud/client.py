"""The two questions that we ask Nextcloud: what is this ExApp (A 5.1), and who is this (A 5.2).

Every call is a GET of our own making: of the client's request nothing travels but its credentials and its address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import quote

from msgspec import Struct

from harp.errors import PeerError, Unreachable
from harp.nextcloud.http import Answer, Getter
from harp.nextcloud.payloads import read_record, read_visitor
from harp.policy.exapp import ANONYMOUS, Level, RecordFact, Trouble, UnknownApp, Visitor, VisitorFact
from harp.policy.question import Login
from harp.settings import Nextcloud
from harp.wire.http import Fields

RECORD_SIZE = 1024 * 1024  # bytes of an exapp-meta answer
VISITOR_SIZE = 64 * 1024  # bytes of a user-info answer
RECORD_CALLS = 8  # at once; scanners try many ids
RETRY = 2.0  # seconds after a failed connect in which nobody tries again
LONGEST_RETRY_AFTER = 300  # seconds

_KEY_REFUSED = b"Harp shared key is not valid"  # the controller's own 401: about the app or the key, not the visitor


class Seen(Struct, frozen=True):
    """The answer about a visitor."""

    fact: VisitorFact
    lasting: bool = False  # may be believed for the lifetime of a session
    app_refused: bool = False  # Nextcloud does not know the app, or not with this key


class NextcloudClient:
    """Asks one Nextcloud. No method raises for what Nextcloud does: trouble is an answer."""

    def __init__(self, settings: Nextcloud, shared_key: str, now: Callable[[], float]) -> None:
        self._timeout = settings.timeout
        self._base = f"{settings.url}/index.php/apps/app_api/harp/"
        self._getter = Getter(settings, shared_key, now)
        self._record_calls = asyncio.Semaphore(RECORD_CALLS)
        self._gate = _Gate(now)

    async def record(self, app_id: str) -> RecordFact:
        """What Nextcloud says of an ExApp, by its lower-cased id."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._record_calls.acquire()
        except TimeoutError:
            return Trouble("Nextcloud is too slow for the number of ExApps that are asked for")
        try:
            answer = await self._get(f"exapp-meta?appId={quote(app_id, safe='')}", [], RECORD_SIZE)
        finally:
            self._record_calls.release()
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

    async def visitor(self, app_id: str, login: Login, address: str) -> Seen:
        """Who logs in with `login` from a client's `address`."""
        told = (
            (b"x-forwarded-for", address.encode()),
            (b"cookie", login.cookie),
            (b"authorization", login.authorization),
        )
        headers = [(name, value) for name, value in told if value]
        answer = await self._get(f"user-info?appId={quote(app_id, safe='')}", headers, VISITOR_SIZE)
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
        self._getter.close()

    async def _get(self, target: str, headers: Fields, limit: int) -> Answer | Trouble:
        down = self._gate.enter()
        if down is not None:
            return down
        try:
            return await self._getter.get(self._base + target, headers, limit)
        except Unreachable as error:
            down = Trouble(str(error))
            return down
        except PeerError as error:
            return Trouble(str(error))
        finally:
            self._gate.leave(down)


class _Gate:
    """After a failed connect one call at a time tries again; the others need not wait for the same result."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._down: Trouble | None = None
        self._trying = False
        self._retry_at = 0.0

    def enter(self) -> Trouble | None:
        """Why not to try now; None = go on, and leave() afterwards."""
        if self._down is None:
            return None
        if self._trying or self._now() < self._retry_at:
            return self._down
        self._trying = True
        return None

    def leave(self, down: Trouble | None) -> None:
        """The call is over; `down` says why no connection could be made."""
        self._trying = False
        self._down = down
        self._retry_at = self._now() + RETRY


def _trouble(answer: Answer) -> Trouble:
    """For a status that answers nothing."""
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
