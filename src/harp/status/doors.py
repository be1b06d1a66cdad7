"""Who may see the admin listener's pages, and who may change something.

People on this host need no login. Others log in with the password (HP_ADMIN_PASSWORD_FILE, else the shared key),
and get a cookie; programs send it as `Authorization: Bearer`. Wrong passwords are strikes, as wrong keys are elsewhere.
A request that a proxy has passed on, or whose Host is a name, does not count as one of this host: the first may come
from anywhere, and the second from a web page whose name was made to resolve to this host (DNS rebinding).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from hashlib import sha256
from ipaddress import ip_address
from typing import Protocol

from msgspec import Struct

from harp.policy.client_address import ban_key
from harp.wire.requests import RequestHead

COOKIE = "harp_admin"
LIFETIME = 12 * 3600.0  # seconds since the last visit
MOST_SESSIONS = 64
_PASSED_ON = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via")


class BanKeeper(Protocol):
    """The ban list: `nextcloud.instance.Instance`."""

    def banned(self, ban_key: str) -> float:
        """Return seconds until this client is served again; 0.0 = it is not banned."""

    def strike(self, ban_key: str, reason: str, proxy_key: str = "") -> None:
        """Count a strike."""


class Guest(Struct, frozen=True):
    """Who asks."""

    local: bool  # from this host
    admitted: bool
    cookie: str  # of a session, or only of a visit; "" = none
    address: str  # that strikes count on


class Doors:
    """Admits callers and keeps their sessions."""

    def __init__(self, password: str, bans: BanKeeper, now: Callable[[], float]) -> None:
        self._password = password.encode("utf-8", "surrogateescape")
        self._bans = bans
        self._now = now
        self._seal = os.urandom(32)  # what `secrets` returns; that loads `random`, for 0.2 MB
        self._sessions: dict[str, float] = {}  # cookie -> when it ends

    def guest_of(self, head: RequestHead, peer: str) -> Guest:
        """Say who asks."""
        cookie = cookie_of(head)
        local = is_local(head, peer)
        address = ban_key(peer) if peer else "this host"
        if local:
            return Guest(True, True, cookie, address)
        return Guest(False, self._has_session(cookie) or self._bearer(head, address), cookie, address)

    def log_in(self, guest: Guest, password: str) -> str | None:
        """Begin a session: its cookie, or None for a wrong password, or any from a banned address."""
        if not self._right(password.encode("utf-8", "surrogateescape"), guest.address):
            return None
        now = self._now()
        self._sessions = {cookie: end for cookie, end in self._sessions.items() if end > now}
        while len(self._sessions) >= MOST_SESSIONS:  # only who has the password comes here: the oldest goes
            del self._sessions[min(self._sessions, key=self._sessions.__getitem__)]
        cookie = os.urandom(32).hex()
        self._sessions[cookie] = now + LIFETIME
        return cookie

    def log_out(self, guest: Guest) -> None:
        """End a session."""
        self._sessions.pop(guest.cookie, None)

    def banned_for(self, guest: Guest) -> float:
        """Return seconds until this address may try a password again."""
        return self._bans.banned(guest.address)

    def form_token(self, cookie: str) -> str:
        """Return the token that a form carries.

        Only a page of ours can know it, and only its own visitor can use it.
        """
        return hmac.new(self._seal, cookie.encode("latin-1", "replace"), sha256).hexdigest()

    def is_own_form(self, guest: Guest, token: str) -> bool:
        """Return whether the form was made by us, for this visitor."""
        return bool(guest.cookie) and hmac.compare_digest(
            self.form_token(guest.cookie).encode(), token.encode("utf-8", "surrogateescape")
        )

    def _has_session(self, cookie: str) -> bool:
        now = self._now()
        if self._sessions.get(cookie, 0.0) <= now:
            return False
        self._sessions[cookie] = now + LIFETIME
        return True

    def _bearer(self, head: RequestHead, address: str) -> bool:
        scheme, _, password = (head.get(b"authorization") or b"").partition(b" ")
        return scheme.lower() == b"bearer" and self._right(password.strip(), address)

    def _right(self, password: bytes, address: str) -> bool:
        if not self._password or self._bans.banned(address):  # without a password nobody comes in from elsewhere
            return False
        if hmac.compare_digest(password, self._password):
            return True
        self._bans.strike(address, "a wrong password for the status page")
        return False


def is_local(head: RequestHead, peer: str) -> bool:
    """Return whether a request comes from this host, not through a proxy or by a name. A unix socket's `peer` is ""."""
    if any(head.get(name) is not None for name in _PASSED_ON):
        return False
    if not peer:
        return True
    return _is_loopback(peer) and _names_an_address(head.get(b"host") or b"")


def cookie_of(head: RequestHead) -> str:
    """Return the value of our cookie, "" without one."""
    for part in (head.get(b"cookie") or b"").split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == COOKIE.encode():
            return value.decode("latin-1")
    return ""


def _is_loopback(peer: str) -> bool:
    try:
        return ip_address(peer.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _names_an_address(host: bytes) -> bool:
    name = host.decode("latin-1").lower()
    bare = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if bare == "localhost" or bare.endswith(".localhost"):
        return True
    try:
        ip_address(bare)
    except ValueError:
        return False
    return True
