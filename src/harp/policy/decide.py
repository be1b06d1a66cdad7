"""The access decision: one request and what is known of it -> a verdict with one reason (A 2.2).

Pure, total, synchronous. When a fact is missing it says which; the caller fetches it, puts it on the call and asks
again. The order of the steps is the contract's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hmac import compare_digest
from math import ceil
from typing import Protocol

from msgspec import Struct

from harp.policy.bans import Denial, Offence, lowest_counted
from harp.policy.exapp import ANONYMOUS, ExApp, Level, RecordFact, Trouble, UnknownApp, Visitor, VisitorFact
from harp.policy.exapp_target import ExAppTargets, exapp_targets_from
from harp.policy.paths import NO_APP, Spot, locate
from harp.policy.verdict import Control, Engine, Forward, Missing, NeedRecord, NeedVisitor, Refuse, Verdict
from harp.settings import Settings

CONTROL = "app_api"  # the reserved id, in exactly this spelling
OLD_AA_VERSION = b"32"  # what ExApps have always got from HaRP where AppAPI does not say

_SIGNED = frozenset(
    {b"ex-app-version", b"ex-app-id", b"ex-app-host", b"ex-app-port", b"authorization-app-api", b"harp-shared-key"}
)
_WANTED = _SIGNED | {b"cookie", b"authorization", b"docker-engine-port", b"aa-version"}
_PASSPHRASE = re.compile(rb"(?:^|;)[ \t]*oc_sessionPassphrase=[ \t]*([^;]?)")
_HOST = re.compile(rb"[A-Za-z0-9._:-]{1,253}\Z")


class Signature(Struct, frozen=True):
    """What AppAPI says of an ExApp on a signed request. Good for something only when the shared key is right."""

    version: bytes
    host: bytes
    port: bytes
    authorization: bytes  # AUTHORIZATION-APP-API; may be empty
    aa_version: bytes

    def __repr__(self) -> str:
        return f"Signature({self.host!r}, {self.port!r})"


class Credentials(Struct):
    """What the header lines of a request claim: who is calling, and with which right.

    Values are as received; of a repeated header the last occurrence counts, only Cookie lines are joined.
    """

    cookie: bytes = b""  # all Cookie lines, joined by "; "
    authorization: bytes | None = None
    passphrase: bool = False  # the first oc_sessionPassphrase cookie has a value: a Nextcloud session may exist
    shared_key: bytes | None = None
    engine_port: bytes = b""
    signature: Signature | None = None  # all six headers are present
    digest: bytes = b""  # set by the session cache: keyed hash of all credentials

    def __repr__(self) -> str:
        return "Credentials(...)"


class Call(Struct):
    """What the decision needs of one request.

    `record` and `visitor` are facts fetched for this request, set by the caller after a `Missing`.
    """

    path: bytes  # raw, without query
    address: str  # the true client, as it is banned
    credentials: Credentials
    record: RecordFact | None = None
    visitor: VisitorFact | None = None

    def __repr__(self) -> str:
        return f"Call({self.path!r}, {self.address!r})"


def credentials_of(headers: list[tuple[bytes, bytes]]) -> Credentials:
    """Take from header lines what the decision needs; names are lower-cased, values trimmed, in the order received."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _WANTED:
            if name == b"cookie" and name in found:  # a browser may send several lines (RFC 9113 section 8.2.3)
                value = found[name] + b"; " + value
            found[name] = value
    cookie = found.get(b"cookie", b"")
    credentials = Credentials(cookie, found.get(b"authorization"))
    if b"oc_sessionPassphrase=" in cookie:
        first = _PASSPHRASE.search(cookie)
        credentials.passphrase = first is not None and first[1] != b""
    if b"harp-shared-key" in found:
        credentials.shared_key = found[b"harp-shared-key"]
        credentials.engine_port = found.get(b"docker-engine-port", b"")
        if found.keys() >= _SIGNED:
            credentials.signature = Signature(
                found[b"ex-app-version"],
                found[b"ex-app-host"],
                found[b"ex-app-port"],
                found[b"authorization-app-api"],
                found.get(b"aa-version") or OLD_AA_VERSION,
            )
    return credentials


class Known(Protocol):
    """What is known already, read synchronously. Looking may start a refresh in the background."""

    def banned(self, address: str) -> float:
        """Seconds until `address` is served again; 0.0 = it is not banned."""
        ...

    def record(self, app_id: str) -> RecordFact | None:
        """What is known of the ExApp with this lower-cased id."""
        ...

    def visitor(self, call: Call) -> VisitorFact | None:
        """Who the credentials of `call` belong to."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What an admin can choose about the decision."""

    shared_key: bytes = field(repr=False)
    engine_ports: frozenset[int]
    targets: ExAppTargets
    counted: Offence  # the mildest offence that is a strike

    def accept(self, key: bytes) -> bool:
        """Is this the shared key? Takes the same time whatever the answer; an empty key is never right."""
        return bool(key) and compare_digest(key, self.shared_key)


def rules_from(settings: Settings) -> Rules:
    """The part of the settings that decisions need."""
    return Rules(
        shared_key=settings.shared_key.encode("utf-8", "surrogateescape"),
        engine_ports=settings.engines.ports,
        targets=exapp_targets_from(settings),
        counted=lowest_counted(settings.bans.strikes),
    )


def decide(call: Call, known: Known, rules: Rules) -> Verdict | Missing:
    """Say what becomes of a request, or which fact is missing."""
    trusted = call.credentials.shared_key is not None and rules.accept(call.credentials.shared_key)
    if not trusted:
        seconds = known.banned(call.address)
        if seconds > 0.0:
            return _banned(seconds)
    spot = locate(call.path)
    answer = spot if isinstance(spot, Denial) else _decide(call, spot, known, rules, trusted)
    if isinstance(answer, Forward):
        answer = _target_checked(answer, rules)
    if isinstance(answer, Denial):
        strike = answer.offence >= rules.counted and not trusted
        return Refuse(answer.status, answer.reason, strike, answer.retry_after)
    return answer


def _target_checked(forward: Forward, rules: Rules) -> Forward | Denial:
    """Whoever chose host and port, nothing but an ExApp can be there."""
    app = forward.record
    objection = rules.targets.objection(app.host, app.port)
    if objection is None:
        return forward
    return Denial(503, f"ExApp {app.app_id} cannot be at {app.host}:{app.port}: {objection}")


def _banned(seconds: float) -> Refuse:
    wait = ceil(seconds)
    return Refuse(429, f"too many strikes from this address, try again in {wait} s", retry_after=wait, banned=True)


def _decide(call: Call, spot: Spot, known: Known, rules: Rules, trusted: bool) -> Verdict | Missing | Denial:
    if spot.app == CONTROL and (trusted or not spot.stripped):
        if not trusted:
            return Denial(401, "a control call without the right harp-shared-key", Offence.ATTACK)
        return _control(call, spot, rules)
    if call.credentials.signature is not None and not trusted:
        return Denial(401, "a signed request without the right harp-shared-key", Offence.ATTACK)
    record = call.record or known.record(spot.app_id)
    if spot.stripped and not trusted and not isinstance(record, ExApp):
        return Denial(404, NO_APP, Offence.REFUSAL)  # random paths must not cost a Nextcloud call each
    if record is None:
        return NeedRecord(spot.app_id)
    if call.credentials.signature is not None:
        return _signed(call, call.credentials.signature, spot, record, known)
    if not isinstance(record, ExApp):
        return _no_record(record)
    if spot.internal:
        return Denial(403, "an internal endpoint of the ExApp, for AppAPI's signed requests only", Offence.ATTACK)
    return _by_route(call, spot, record, known)


def _control(call: Call, spot: Spot, rules: Rules) -> Control | Engine | Denial:
    if not call.credentials.engine_port or spot.target.startswith(b"/docker/"):
        return Control(spot.target, "control call")
    if not call.credentials.engine_port.isdigit() or len(call.credentials.engine_port) > 5:
        return Denial(400, "docker-engine-port is not a port number")
    port = int(call.credentials.engine_port)
    if port not in rules.engine_ports:
        return Denial(403, f"docker-engine-port {port} is not in HP_DOCKER_ENGINE_PORTS")
    return Engine(port, spot.target, f"call to the engine of port {port}")


def _signed(
    call: Call, signature: Signature, spot: Spot, record: RecordFact, known: Known
) -> Forward | NeedVisitor | Denial:
    """AppAPI is asking: its word replaces a missing record, and its authorization replaces routes and visitor."""
    app = record if isinstance(record, ExApp) else _record_from(signature, spot)
    if isinstance(app, Denial):
        return app
    if not signature.authorization:
        return _by_route(call, spot, app, known)
    return Forward(
        spot.app,
        spot.target,
        spot.prefix,
        app,
        signature.authorization,
        signature.aa_version,
        user="",
        route=None,
        signed=True,
        reason=_with_fix("signed by AppAPI", spot),
        stripped=spot.stripped,
    )


def _record_from(signature: Signature, spot: Spot) -> ExApp | Denial:
    """A record for this one request, where Nextcloud has none (yet)."""
    host, port = signature.host.strip(b"[]"), signature.port
    if not _HOST.match(host):
        return Denial(400, "ex-app-host of a signed request is not a host name or address")
    if not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        return Denial(400, "ex-app-port of a signed request is not a port number")
    version = signature.version.decode("utf-8", "surrogateescape")
    return ExApp(spot.app_id, token="", version=version, host=host.decode("ascii"), port=int(port))


def _no_record(record: UnknownApp | Trouble) -> Denial:
    if isinstance(record, Trouble):
        return Denial(503, record.reason, retry_after=record.retry_after)
    return Denial(404, record.reason, Offence.REFUSAL)


def _by_route(call: Call, spot: Spot, record: ExApp, known: Known) -> Forward | NeedVisitor | Denial:
    hit = record.table.match(spot)
    if isinstance(hit, Denial):
        return hit
    level, reason, visitor = hit.route.access_level, hit.reason, ANONYMOUS
    if call.credentials.authorization or call.credentials.passphrase:
        fact = call.visitor or known.visitor(call)
        if fact is None:
            return NeedVisitor(spot.app_id)
        if isinstance(fact, Visitor):
            visitor = fact
            if visitor.refused:
                reason += "; Nextcloud refuses the Authorization"
        elif level > Level.PUBLIC:
            return Denial(503, fact.reason, retry_after=fact.retry_after)
        else:
            reason += f"; served as anonymous: {fact.reason}"
    if visitor.level < level:
        who = visitor.level.name if visitor.user_id else "anonymous"
        return Denial(403, f"{reason}; the visitor is {who}", Offence.ATTACK if visitor.refused else Offence.REFUSAL)
    return Forward(
        spot.app,
        spot.target,
        spot.prefix,
        record,
        record.authorization(visitor.user_id),
        call.credentials.signature.aa_version if call.credentials.signature is not None else OLD_AA_VERSION,
        visitor.user_id,
        hit.route,
        False,
        _with_fix(reason, spot),
        visitor.refused and _is_password(call.credentials.authorization),
        spot.stripped,
    )


def _is_password(authorization: bytes | None) -> bool:
    """Basic is meant for Nextcloud; a bearer token may be the ExApp's own affair."""
    return authorization is not None and authorization[:6].lower() == b"basic "


def _with_fix(reason: str, spot: Spot) -> str:
    if not spot.stripped:
        return reason
    return f"{reason}; the reverse proxy strips /exapps: make it forward the path unchanged"
