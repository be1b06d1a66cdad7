"""The walk through the public URL, as a browser and AppAPI go: what of a request arrives, and how. Blocks."""

from __future__ import annotations

import socket
import ssl
import time
from urllib.parse import urlsplit

import msgspec

from harp.errors import words_of
from harp.policy.paths import NO_APP
from harp.settings import Proxies
from harp.state.walks import SeenStep
from harp.status.doctor import fixes
from harp.status.doctor.report import Finding, failed, ok, skipped, warning
from harp.status.doctor.road import Road, RoadBroken, StepAnswer
from harp.status.doctor.roads import address_findings, name_findings

FORGED = "192.0.2.77"  # of TEST-NET-1 (RFC 5737): nobody's
BODIES = (10 << 30, 1 << 30, 100 << 20, 10 << 20, 1 << 20, 100 << 10)
SENT_BODY = 3 << 20  # bytes
LARGE_ENOUGH = 1 << 30
SOON = 21 * 86400.0  # seconds
REDIRECTS = 3
EXPIRED, NOT_YET_VALID, NO_ISSUER, WRONG_NAME, WRONG_ADDRESS = 10, 9, 20, 62, 64  # X509_V_ERR_...

REACH = "the public URL answers"
TRUST = "its certificate is trusted"
ARRIVES = "/exapps/ arrives at HaRP"
PREFIX = "the path arrives unchanged"
UPGRADE = "WebSockets pass"
BODY = "large uploads pass"
BUFFER = "responses are not buffered"
MOMENT = 0.2  # seconds
STEPS = (("prefix", PREFIX), ("address", "the client's address arrives"), ("websocket", UPGRADE))
LATER_STEPS = (("body", BODY), ("stream", BUFFER))


def walk(url: str, nonce: str, proxies: Proxies) -> list[Finding]:
    """Take every step that the ones before allow; the findings in the order of the way."""
    findings = []
    road = Road(url)
    reached = _reached(road)
    findings += reached
    if any(finding.check == "road.reach" and finding.state == "failed" for finding in reached):
        return [*findings, *_skipped((("arrives", ARRIVES), *STEPS, *LATER_STEPS), "the public URL does not answer")]
    if any(finding.check == "road.tls" and finding.state == "failed" for finding in reached):
        road = Road(url, verify=False)
    base = f"/exapps/app_api/doctor/{nonce}"
    try:
        road, answer = _hello(road, f"{base}/hello")
        if _seen(answer) is None:  # it has come to another member, which may hear of this walk a moment later
            time.sleep(MOMENT)
            road, answer = _hello(road, f"{base}/hello")
    except RoadBroken as error:
        broken = failed("road.arrives", ARRIVES, f"{road.url}/exapps/: {error}", fixes.REACH)
        return [*findings, broken, *_skipped((*STEPS, *LATER_STEPS), "no request arrives")]
    seen = _seen(answer)
    if seen is None:
        return [*findings, _lost(road, answer), *_skipped((*STEPS, *LATER_STEPS), "no request arrives")]
    findings.append(ok("road.arrives", ARRIVES, f"through {seen.peer}" if seen.peer else ""))
    findings += _arrived(road, base, seen, answer.local_port, proxies)
    return findings


def _skipped(steps: tuple[tuple[str, str], ...], why: str) -> list[Finding]:
    return [skipped(f"road.{check}", title, why) for check, title in steps]


def _hello(road: Road, path: str) -> tuple[Road, StepAnswer]:
    """Ask, and follow where we are sent. Raises RoadBroken."""
    answer = road.ask("GET", path)
    for _ in range(REDIRECTS):
        location = answer.headers.get("location", "")
        base = location.removesuffix(path)
        if answer.status not in (301, 302, 307, 308) or base == location or not urlsplit(base).hostname:
            break
        road = Road(base, verify=False)
        answer = road.ask("GET", path)
    return road, answer


def _arrived(road: Road, base: str, seen: SeenStep, local_port: int, proxies: Proxies) -> list[Finding]:
    """Take the steps that need a way to HaRP."""
    findings = [_prefix(seen, base)]
    try:
        forged = _seen(road.ask("GET", f"{base}/hello", {proxies.header: FORGED}))
    except RoadBroken:
        forged = None
    direct = seen.peer_port == local_port
    findings += address_findings(seen, forged, proxies, direct=direct, invented=FORGED)
    findings += name_findings(seen, road.netloc, "https" if road.secure else "http")
    for step, check, title in ((_websocket, "websocket", UPGRADE), (_body, "body", BODY), (_stream, "stream", BUFFER)):
        try:
            findings.append(step(road, base))
        except RoadBroken as error:
            findings.append(failed(f"road.{check}", title, f"the step {check} broke: {error}", fixes.OF_STEP[check]))
    return findings


def _reached(road: Road) -> list[Finding]:
    """Name, connection, TLS."""
    try:
        socket.getaddrinfo(road.host, road.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = words_of(error) if isinstance(error, OSError) else "it is not a host name"
        return [failed("road.reach", REACH, f"the name {road.host} does not resolve: {why}", fixes.NAME)]
    try:
        with road.connect() as sock:
            found = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
    except ssl.SSLCertVerificationError as error:
        return [ok("road.reach", REACH), _untrusted(road, error)]
    except ssl.SSLError as error:
        return [ok("road.reach", REACH), failed("road.tls", TRUST, words_of(error), fixes.TLS)]
    except OSError as error:
        where = f"{road.host}:{road.port}"
        why = "no answer" if isinstance(error, TimeoutError) else words_of(error)
        return [failed("road.reach", REACH, f"{where} cannot be reached: {why}", fixes.REACH)]
    findings = [ok("road.reach", REACH, road.url)]
    if found:
        left = ssl.cert_time_to_seconds(str(found["notAfter"])) - time.time()
        until = f"until {found['notAfter']}"
        near = warning("road.tls", TRUST, f"only {until}", fixes.RENEW)
        findings.append(near if left < SOON else ok("road.tls", TRUST, until))
    return findings


def _untrusted(road: Road, error: ssl.SSLCertVerificationError) -> Finding:
    code = error.verify_code
    cause = f"the certificate of {road.host}:{road.port} is not trusted: {error.verify_message}"
    fix = fixes.TLS
    if code == EXPIRED:
        cause, fix = f"the certificate of {road.host}:{road.port} has expired", fixes.RENEW
    elif code == NOT_YET_VALID:
        cause, fix = f"the certificate of {road.host}:{road.port} is not valid yet", fixes.CLOCK
    elif code in (WRONG_NAME, WRONG_ADDRESS):
        cause, fix = f"the certificate is not for {road.host}", fixes.TLS_NAME
    elif code == NO_ISSUER:
        fix = fixes.TLS_CHAIN
    return failed("road.tls", TRUST, cause, fix)


def _seen(answer: StepAnswer) -> SeenStep | None:
    if answer.status != 200:
        return None
    try:
        return msgspec.json.decode(answer.body, type=SeenStep)
    except msgspec.DecodeError:
        return None


def _lost(road: Road, answer: StepAnswer) -> Finding:
    """Explain why a request met somebody else."""
    where = f"{road.url}/exapps/"
    if answer.is_of_harp:
        if answer.status == 429:
            return failed("road.arrives", ARRIVES, "HaRP has banned the address that the walk comes from", fixes.BANNED)
        if NO_APP.encode() in answer.body:
            cause = "HaRP is called with a path in which /exapps/app_api is missing"
            return failed("road.arrives", ARRIVES, cause, fixes.PREFIX)
        return failed("road.arrives", ARRIVES, f"{where} leads to another HaRP than this one", fixes.OTHER_HARP)
    if answer.status in (502, 503, 504):
        cause = f"the reverse proxy answers {answer.status} for {where}: it does not reach HaRP"
        return failed("road.arrives", ARRIVES, cause, fixes.UPSTREAM)
    cause = f"{where} is not forwarded to HaRP: somebody else answers {answer.status}"
    return failed("road.arrives", ARRIVES, cause, fixes.FORWARD)


def _prefix(seen: SeenStep, base: str) -> Finding:
    if seen.path.endswith(f"{base}/hello"):
        return ok("road.prefix", PREFIX)
    cause = f"HaRP gets {seen.path.partition('/doctor/')[0]}/... for /exapps/app_api/...: the reverse proxy strips it"
    return failed("road.prefix", PREFIX, cause, fixes.PREFIX)


def _websocket(road: Road, base: str) -> Finding:
    answer, echoed = road.websocket(f"{base}/websocket")
    if echoed:
        return ok("road.websocket", UPGRADE)
    if answer.status == 101:
        return failed("road.websocket", UPGRADE, "a WebSocket opens, and no message comes back", fixes.UPGRADE)
    if answer.status == 426:
        cause = "the request arrives without its Upgrade header"
    else:
        cause = f"the request for a WebSocket is answered with {answer.status}"
    return failed("road.websocket", UPGRADE, cause, fixes.UPGRADE)


def _body(road: Road, base: str) -> Finding:
    path = f"{base}/body"
    largest, refused = road.largest_body(path, BODIES)
    if largest < LARGE_ENOUGH and refused is not None:
        limit = f"up to {_size(largest)} passes" if largest else "not even 100 kB passes"
        cause = f"the reverse proxy refuses large bodies (413): {limit}"
        return (failed if largest < 100 << 20 else warning)("road.body", BODY, cause, fixes.BODY)
    answer = road.ask("POST", path, {"Content-Type": "application/octet-stream"}, bytes(SENT_BODY))
    if answer.status == 200 and answer.body == msgspec.json.encode({"bytes": SENT_BODY}).replace(b":", b": "):
        return ok("road.body", BODY)
    if answer.status == 413:
        cause = f"a body of {_size(SENT_BODY)} is answered with 413"
    elif answer.status == 200:
        cause = f"of a body of {SENT_BODY} bytes HaRP gets {answer.body[:40].decode('latin-1')}"
    else:
        cause = f"a body of {_size(SENT_BODY)} is answered with {answer.status}"
    return failed("road.body", BODY, cause, fixes.BODY)


def _size(count: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20)):
        if count >= size:
            return f"{count // size} {unit}"
    return f"{count >> 10} kB"


def _stream(road: Road, base: str) -> Finding:
    if road.streams(f"{base}/events", f"{base}/release"):
        return ok("road.stream", BUFFER)
    cause = "an event that HaRP has sent does not arrive before its answer has ended: the reverse proxy buffers it"
    return failed("road.stream", BUFFER, cause, fixes.BUFFER)
