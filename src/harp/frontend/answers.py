"""The answers that we make ourselves: short, with the reason, as text or JSON."""

from __future__ import annotations

from http import HTTPStatus
from time import gmtime, strftime

import msgspec

from harp.policy.paths import NO_APP
from harp.wire.requests import RequestHead

ALLOWED = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"  # English, as HaRP sets no locale; email.utils would cost 0.4 MB

# What strangers read of statuses whose reasons name hosts, ports, patterns or the state of things behind us.
PLAIN = {
    403: "no access; perhaps you have to sign in to Nextcloud first",
    404: "there is nothing here",
    502: "the app gave no proper answer",
    503: "the app or Nextcloud cannot be reached at the moment",
    504: "the app did not answer in time",
}


def told(status: int, reason: str, *, trusted: bool) -> str:
    """The reason as the client gets it; the log has it in full."""
    return reason if trusted or reason == NO_APP else PLAIN.get(status, reason)


def refusal(
    head: RequestHead | None,
    status: int,
    reason: str,
    request_id: bytes,
    retry_after: int | None,
    *,
    keep_alive: bool,
) -> tuple[bytes, int]:
    """A whole response and the length of its body. AppAPI shows an admin its first 120 characters: the reason first."""
    phrase = HTTPStatus(status).phrase
    if head is not None and _wants_json(head):
        kind = b"application/json; charset=utf-8"
        body = msgspec.json.encode(
            {"error": f"{status} {phrase}", "reason": reason, "request_id": request_id.decode("latin-1")}
        )
    else:
        kind = b"text/plain; charset=utf-8"
        body = f"{status} {phrase}: {reason}\nrequest id: {request_id.decode('latin-1')}\n".encode()
    lines = [
        b"HTTP/1.1 %d %b" % (status, phrase.encode()),
        b"date: " + strftime(HTTP_DATE, gmtime()).encode(),
        b"content-type: " + kind,
        b"content-length: %d" % len(body),
        b"cache-control: no-store",
        b"x-content-type-options: nosniff",
        b"x-request-id: " + request_id,
    ]
    if status == 405:
        lines.append(b"allow: " + ALLOWED)
    if retry_after is not None:
        lines.append(b"retry-after: %d" % retry_after)
    if not keep_alive:
        lines.append(b"connection: close")
    elif head is not None and not head.minor:
        lines.append(b"connection: keep-alive")
    without_body = head is not None and head.method == b"HEAD"
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if without_body else body), 0 if without_body else len(body)


def _wants_json(head: RequestHead) -> bool:
    """JSON only for who names it and not HTML, as fetch() code does; everybody else gets text."""
    accept = head.get(b"accept")
    return accept is not None and b"json" in accept.lower() and b"html" not in accept.lower()
