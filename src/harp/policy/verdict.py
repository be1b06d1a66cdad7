"""What the decision says about one request: frozen values, each with its one reason.

The same verdict feeds the proxy, the access log, metrics and the status page.
"""

from __future__ import annotations

from msgspec import Struct

from harp.policy.exapp import ExApp, Route


class Forward(Struct, frozen=True):
    """Pass the request on to an ExApp."""

    app_id: str  # as the URL spells it: the ExApp compares EX-APP-ID with its own id, case included
    target: bytes  # raw path to send, without query; begins with "/"
    prefix: bytes  # what was removed, for X-Forwarded-Prefix: b"/exapps/hello"
    record: ExApp
    authorization: bytes  # value of AUTHORIZATION-APP-API
    aa_version: bytes  # value of AA-VERSION: AppAPI's own on signed calls, else b"32"
    user: str  # "" = nobody
    route: Route | None  # None on signed calls
    signed: bool
    reason: str
    strike: bool = False  # served, and still counted: a password that Nextcloud refuses, on a PUBLIC route
    stripped: bool = False  # a reverse proxy removed /exapps; works, but should be put right: `reason` says how

    def __repr__(self) -> str:
        return f"Forward({self.app_id!r}, {self.target!r}, user={self.user!r}, {self.reason!r})"


class Control(Struct, frozen=True):
    """Answer by the control API (A 4)."""

    target: bytes  # raw path without query and without /exapps/app_api; begins with "/"
    reason: str
    walk: bool = False  # a step of `harp doctor` through the public URL: the answer says how it arrived


class Engine(Struct, frozen=True):
    """Pass the request through to a Docker engine (A 3)."""

    port: int
    target: bytes
    reason: str


class Gateway(Struct, frozen=True):
    """Pass the request on to Nextcloud as it is: HaRP is in front of all of it (HP_GATEWAY_URL)."""

    reason: str


class Refuse(Struct, frozen=True):
    """Do not serve. `strike` counts towards a ban of the true client address."""

    status: int
    reason: str
    strike: bool = False
    retry_after: int | None = None  # seconds
    banned: bool = False  # refused for a ban: HP_BAN_ACTION decides between a reply and silence


Verdict = Forward | Control | Engine | Gateway | Refuse


class NeedRecord(Struct, frozen=True):
    """The decision needs the record of an ExApp."""

    app_id: str  # lower-cased


class NeedVisitor(Struct, frozen=True):
    """The decision needs to know who is calling."""

    app_id: str  # lower-cased
    optional: bool = False  # the route is PUBLIC: it is better served to nobody in particular than late


Missing = NeedRecord | NeedVisitor
