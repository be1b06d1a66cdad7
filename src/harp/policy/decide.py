"""The access decision: one request and what is known of it -> a verdict with one reason (A 2.2).

Pure, total, synchronous. If a fact is missing, it names it; the caller fetches it and asks again. The order of the
steps is that of A 2.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hmac import compare_digest
from math import ceil
from typing import Protocol
from urllib.parse import urlsplit

from harp.policy.bans import Denial, Offence, app_key, lowest_counted
from harp.policy.exapp import ANONYMOUS, ExApp, Level, RecordFact, Trouble, UnknownApp, Visitor, VisitorFact
from harp.policy.exapp_target import ExAppTargets, exapp_targets_from
from harp.policy.paths import NO_APP, ExAppPath, is_prefix, locate
from harp.policy.question import OLD_AA_VERSION, Credentials, Key, Question, Signature
from harp.policy.verdict import Control, Engine, Forward, Gateway, Missing, NeedRecord, NeedVisitor, Refuse, Verdict
from harp.settings import Settings

CONTROL = "app_api"  # the reserved id, in exactly this spelling

_HOST = re.compile(rb"[A-Za-z0-9._:-]{1,253}\Z")


class KnownFacts(Protocol):
    """The known facts, read synchronously. Reading may start a refresh in the background."""

    def banned(self, ban_key: str) -> float:
        """Return seconds until this client is served again; 0.0 = it is not banned.

        The key may be that of a client, of a peer that names clients, or `app_key`.
        """
        ...

    def record(self, app_id: str) -> RecordFact | None:
        """Return what is known of the ExApp with this lower-cased id."""
        ...

    def visitor(self, digest: bytes) -> VisitorFact | None:
        """Return who the credentials with this digest belong to."""
        ...

    def expects(self, target: bytes) -> bool:
        """Return whether this raw target is a step of a walk that `harp doctor` takes now. See state.walks."""
        ...


class Learned:
    """Facts that were fetched for one request, in front of the known ones: they need not be cached."""

    def __init__(self, facts: KnownFacts) -> None:
        self.banned = facts.banned
        self.expects = facts.expects
        self._facts = facts
        self._records: dict[str, RecordFact] = {}
        self._visitors: dict[bytes, VisitorFact] = {}

    def learn_record(self, app_id: str, fact: RecordFact) -> None:
        """Note what was fetched about an ExApp; `app_id` is in lower case."""
        self._records[app_id] = fact

    def learn_visitor(self, digest: bytes, fact: VisitorFact) -> None:
        """Note who the credentials with this digest belong to."""
        self._visitors[digest] = fact

    def record(self, app_id: str) -> RecordFact | None:
        return self._records.get(app_id) or self._facts.record(app_id)

    def visitor(self, digest: bytes) -> VisitorFact | None:
        return self._visitors.get(digest) or self._facts.visitor(digest)


@dataclass(frozen=True, slots=True)
class Rules:
    """What an admin can choose about the decision."""

    shared_key: bytes = field(repr=False)
    engine_ports: frozenset[int]
    targets: ExAppTargets
    counted: Offence  # the mildest offence that is a strike
    ours: tuple[bytes, ...] = ()  # where paths begin that are not for Nextcloud itself; () = it is not behind us

    def accept(self, key: bytes) -> bool:
        """Return whether this is the shared key, in the same time whatever the answer; an empty key is never right."""
        return bool(key) and compare_digest(key, self.shared_key)


def rules_from(settings: Settings) -> Rules:
    """Return the part of the settings that decisions need."""
    return Rules(
        shared_key=settings.shared_key.encode("utf-8", "surrogateescape"),
        engine_ports=settings.engines.ports,
        targets=exapp_targets_from(settings),
        counted=lowest_counted(settings.bans.strikes),
        ours=_ours(settings.gateway_url),
    )


def _ours(gateway_url: str) -> tuple[bytes, ...]:
    """Control calls come without Nextcloud's subfolder, all others with it."""
    return tuple({b"/exapps/", urlsplit(gateway_url).path.encode() + b"/exapps/"}) if gateway_url else ()


def decide(question: Question, facts: KnownFacts, rules: Rules) -> Verdict | Missing:
    """Return the verdict on a request, or the fact that is missing."""
    if rules.ours and not question.path.startswith(rules.ours):
        return Gateway("for Nextcloud itself")
    asker = question.asker
    trusted = asker.credentials.key is Key.RIGHT
    if not trusted:
        seconds = facts.banned(asker.ban_key)
        if asker.proxy_key:
            seconds = max(seconds, facts.banned(asker.proxy_key))
        if seconds > 0.0:
            return _banned(seconds)
    spot = locate(question.path)
    answer = spot if isinstance(spot, Denial) else _decide(asker.credentials, spot, facts, rules)
    if isinstance(answer, Forward):
        answer = _target_checked(answer, rules)
    if isinstance(answer, Denial):
        return _refuse(answer, asker.credentials.key, rules)
    if isinstance(answer, Forward) and not trusted:
        seconds = facts.banned(app_key(asker.ban_key, answer.record.app_id))
        if seconds > 0.0:
            return _banned(seconds)
    return answer


def _refuse(denial: Denial, key: Key, rules: Rules) -> Refuse:
    offence = denial.offence
    if offence is Offence.PROBE:  # a foreign page makes browsers ask for any path, but not with a key
        offence = Offence.REFUSAL if key is Key.ABSENT else Offence.ATTACK
    strike = offence >= rules.counted and key is not Key.RIGHT
    return Refuse(denial.status, denial.reason, strike, denial.retry_after)


def _target_checked(forward: Forward, rules: Rules) -> Forward | Denial:
    """Check that the target can only be an ExApp, no matter who chose host and port."""
    app = forward.record
    objection = rules.targets.objection(app.host, app.port)
    if objection is None:
        return forward
    return Denial(503, f"ExApp {app.app_id} cannot be at {app.host}:{app.port}: {objection}")


def _banned(seconds: float) -> Refuse:
    wait = ceil(seconds)
    return Refuse(429, f"too many strikes from this address, try again in {wait} s", retry_after=wait, banned=True)


def _decide(credentials: Credentials, spot: ExAppPath, facts: KnownFacts, rules: Rules) -> Verdict | Missing | Denial:
    trusted, signature = credentials.key is Key.RIGHT, credentials.signature
    if spot.app == CONTROL:
        if not trusted and facts.expects(spot.target):
            return Control(spot.target, "a step of harp doctor", walk=True)
        if not trusted and not spot.stripped:
            return Denial(401, "a control call without the right harp-shared-key", Offence.PROBE)
        if trusted:
            return _control(credentials.engine_port, spot, rules)
    if signature is not None and not trusted:
        return Denial(401, "a signed request without the right harp-shared-key", Offence.ATTACK)
    record = facts.record(spot.app_id)
    if spot.stripped and not trusted and not isinstance(record, ExApp):
        return Denial(404, NO_APP, Offence.REFUSAL)  # random paths must not cost a Nextcloud call each
    if record is None:
        return NeedRecord(spot.app_id)
    if signature is not None:
        return _signed(credentials, signature, spot, record, facts)
    if not isinstance(record, ExApp):
        return _no_record(record)
    if spot.internal:
        return Denial(403, "an internal endpoint of the ExApp, for AppAPI's signed requests only", Offence.PROBE)
    return _by_route(credentials, spot, record, facts)


def _control(engine_port: bytes, spot: ExAppPath, rules: Rules) -> Control | Engine | Denial:
    if not engine_port or spot.target.startswith(b"/docker/"):
        return Control(spot.target, "control call")
    if not engine_port.isdigit() or len(engine_port) > 5:
        return Denial(400, "docker-engine-port is not a port number")
    port = int(engine_port)
    if port not in rules.engine_ports:
        return Denial(403, f"docker-engine-port {port} is not in HP_DOCKER_ENGINE_PORTS")
    return Engine(port, spot.target, f"call to the engine of port {port}")


def _signed(
    credentials: Credentials, signature: Signature, spot: ExAppPath, record: RecordFact, facts: KnownFacts
) -> Forward | NeedVisitor | Denial:
    """Decide about AppAPI's request: its headers replace a missing record, its authorization routes and visitor."""
    app = record if isinstance(record, ExApp) else _record_from(signature, spot)
    if isinstance(app, Denial):
        return app
    if not signature.authorization:
        return _by_route(credentials, spot, app, facts)
    return Forward(
        app_id=spot.app,
        target=spot.target,
        prefix=_prefix(spot),
        record=app,
        authorization=signature.authorization,
        aa_version=signature.aa_version,
        user="",
        route=None,
        signed=True,
        reason=_with_fix("signed by AppAPI", spot),
        stripped=spot.stripped,
    )


def _record_from(signature: Signature, spot: ExAppPath) -> ExApp | Denial:
    """Return a record for this one request, where Nextcloud has none (yet)."""
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


def _by_route(
    credentials: Credentials, spot: ExAppPath, record: ExApp, facts: KnownFacts
) -> Forward | NeedVisitor | Denial:
    hit = record.table.match(spot)
    if isinstance(hit, Denial):
        return hit
    level, reason, visitor = hit.route.access_level, hit.reason, ANONYMOUS
    if credentials.digest:
        fact = facts.visitor(credentials.digest)
        if fact is None:
            return NeedVisitor(spot.app_id, optional=level == Level.PUBLIC)
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
    signature = credentials.signature
    return Forward(
        app_id=spot.app,
        target=spot.target,
        prefix=_prefix(spot),
        record=record,
        authorization=record.authorization(visitor.user_id),
        aa_version=OLD_AA_VERSION if signature is None else signature.aa_version,
        user=visitor.user_id,
        route=hit.route,
        signed=False,
        reason=_with_fix(reason, spot),
        strike=visitor.refused and credentials.password,
        stripped=spot.stripped,
    )


def _prefix(spot: ExAppPath) -> bytes:
    """Return what was removed from the path, for links of the ExApp; but no prefix that a client has made up."""
    prefix = spot.prefix
    return prefix if prefix.startswith(b"/exapps/") or is_prefix(prefix) else b"/exapps/" + spot.app.encode("ascii")


def _with_fix(reason: str, spot: ExAppPath) -> str:
    if not spot.stripped:
        return reason
    return f"{reason}; the reverse proxy strips /exapps: make it forward the path unchanged"
