"""Header lines fit to be shown: possible secrets are hidden, long values are cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harp.logs import HIDDEN, is_secret_name

Shown = tuple[tuple[str, str], ...]

MOST_LINES = 64
LONGEST = 200  # characters of a value
# Beyond `is_secret_name`: ExApps and browsers invent names of their own.
_TELLING = re.compile(r"auth|cookie|credential|csrf|nonce|pass|secret|session|sig|token|key|jwt|saml", re.IGNORECASE)
_HARMLESS = frozenset(
    ("access-control-allow-credentials", "sec-websocket-key", "x-content-type-options", "sec-fetch-user")
)
_WITH_URLS = frozenset(("content-location", "link", "location", "referer", "refresh", "x-original-url"))


class Redaction:
    """Shows header lines. `secrets` are hidden wherever they occur."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = [secret for secret in secrets if secret]

    def lines(self, fields: Iterable[tuple[bytes, bytes]]) -> Shown:
        """Return the lines that may be shown, MOST_LINES at most."""
        shown: list[tuple[str, str]] = []
        for name, value in fields:
            if len(shown) == MOST_LINES:
                shown.append(("…", "more lines"))
                break
            text = name.decode("latin-1").lower()
            shown.append((text[:LONGEST], self.value(text, value.decode("latin-1"))))
        return tuple(shown)

    def value(self, name: str, value: str) -> str:
        """Return what may be seen of the value of a header; `name` is in lower case."""
        if name not in _HARMLESS and (is_secret_name(name) or _TELLING.search(name)):
            return HIDDEN
        for secret in self._secrets:
            value = value.replace(secret, HIDDEN)
        if name in _WITH_URLS and "?" in value:
            value = value.partition("?")[0] + "?…"
        return value if len(value) <= LONGEST else value[:LONGEST] + "…"


def query_names(query: bytes) -> str:
    """Return a query with the names of its parameters only: "?page=…&token=…"; b"" is ""."""
    if len(query) < 2:
        return ""
    names = [part.partition("=")[0][:40] for part in query[1:1024].decode("latin-1").split("&") if part]
    return "?" + "&".join(f"{name}=…" for name in names[:10])


def response_fields(start: bytes) -> list[tuple[bytes, bytes]]:
    """Return the header lines after a status line; `start` are complete lines, or b""."""
    fields = []
    for line in start.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            fields.append((name, value.strip(b" \t")))
    return fields
