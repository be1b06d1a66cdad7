"""The meaning of a request path: which ExApp, which target, and every way an ExApp could read that target.

Proxies, frameworks and URL libraries read the same bytes differently: some decode before they route, some merge
slashes, cut off path parameters or remove a host first. So an unusual path is read in every such way, in any order, and
the access decision looks at all the readings. Nearly all paths are ordinary: they have one reading, and one expression
tells so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from unicodedata import normalize
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from harp.policy.bans import Denial, Offence
from harp.wire.core import cut_path
from harp.wire.ordinary import EXAPP

DECODINGS = 4  # rounds of percent-decoding in which `..` and hosts are looked for
READINGS = 32  # of one target; a path with more is a riddle, not an address
READ_BYTES = 1 << 16  # of all readings together
UNUSUAL = 8192  # bytes; longer paths are read if they are ordinary, but for escapes

NO_APP = "no /exapps/<app> in the path: does the reverse proxy strip /exapps, or forward other requests to HaRP?"

_OF_AN_APP = re.compile(rb"%b(/.*)" % EXAPP, re.DOTALL).fullmatch
# What is not read in the same way by everybody once it is decoded.
_UNUSUAL = re.compile(rb"[\x00-\x1f\x7f%;\\?#]|//|/\.{1,2}(?:/|\Z)|\A/[ +]|[ +]\Z").search
_PLAIN_PREFIX = re.compile(rb"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._~-]+)+").fullmatch
_PREFIX = re.compile(rb"(?:^|/)exapps/([^/]+)")
_FIRST = re.compile(rb"/+([^/]+)")
_APP = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")
_PARENT = re.compile(rb"(?:^|[/\\])\.\.(?:[/\\;]|$)")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_SEPARATOR = re.compile(rb"\\|%(?:2f|5c)", re.IGNORECASE)  # other than a plain "/"
_ENCODED_SEPARATOR = re.compile(rb"%(?=2f|5c)", re.IGNORECASE)
# Escapes that no client needs to send: letters, digits, "-._~", and the separators, which mean something else then.
_NEEDLESS = re.compile(rb"%(?:2[def]|3\d|[46][1-9a-f]|[57][\da]|5[cf]|7e)", re.IGNORECASE)
_OVERLONG = re.compile(rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]|\xf0[\x80-\x8f][\x80-\xbf]{2}")
_PERCENT_U = re.compile(rb"%u[\da-f]{4}", re.IGNORECASE)
_DOTS = re.compile(rb"/(?:\.(?=/|\Z))")
_SLASHES = re.compile(rb"/{2,}")
_PARAMETERS = re.compile(rb";[^/]*")  # of a segment; servlet containers route without them
_LAST_PARAMETERS = re.compile(rb";[^/]*\Z")  # of the last segment; so does Python's urlparse
_AUTHORITY = re.compile(rb"[/\\]{2,}[^/\\]*")  # libraries for URLs take this for a host
_END = re.compile(rb"[?#\x00].*", re.DOTALL)  # where a path ends for those who decode before they split
_ALL_PARAMETERS = re.compile(rb";.*", re.DOTALL)  # what is left of a path when it is cut at its first ";"

Step = Callable[[bytes], bytes]

_INTERNAL = frozenset((b"/heartbeat", b"/init", b"/enabled"))  # AppAPI's own endpoints
_LONGEST_INTERNAL = max(map(len, _INTERNAL)) + 1


def is_prefix(path: bytes) -> bool:
    """Return whether this may precede paths in links: no second slash, no "..", nothing like a host."""
    return _PLAIN_PREFIX(path) is not None


class ExAppPath(Struct, frozen=True):
    """A path that names an ExApp, and the ways to read its target. All of them begin with "/".

    `plain` is the reading that decides: percent-decoded once, without empty and "." segments. None of the `others` may
    hit a stricter route, or none. What is in `loose` counts only where it leads to a stricter route: that it has
    no route is usual.
    """

    app: str  # as the URL spells it
    app_id: str  # lower-cased
    prefix: bytes  # what is removed, as a browser sees it: b"/exapps/hello"
    target: bytes  # raw, begins with "/"
    plain: bytes
    others: tuple[bytes, ...] = ()
    loose: tuple[bytes, ...] = ()
    doubtful: bool = False  # it has an encoded slash or a backslash, which must not change the route
    internal: bool = False  # some spelling of /heartbeat, /init or /enabled
    stripped: bool = False  # /exapps was already gone: `app` is just the first segment, and may be anything


def locate(path: bytes) -> ExAppPath | Denial:
    """Read a raw request path without its query."""
    ordinary = cut_path(path)
    if ordinary is None:
        return _read_escapes(path) or read_carefully(path)
    app, app_id, prefix, target = ordinary
    size = len(target)
    loose = () if target[-1] != 0x2F or size == 1 else (target[:-1],)
    internal = size <= _LONGEST_INTERNAL and target.lower().rstrip(b"/") in _INTERNAL
    return ExAppPath(app, app_id, prefix, target, target, (), loose, False, internal)


def _read_escapes(path: bytes) -> ExAppPath | None:
    """Read a path that is ordinary once it is decoded, and has no escape that it does not need."""
    found = _OF_AN_APP(path)
    if found is None:
        return None
    prefix, name, target = found.groups()
    plain = unquote_to_bytes(target)
    if _UNUSUAL(plain) or _NEEDLESS.search(target):
        return None
    if not plain.isascii() and (
        _OVERLONG.search(plain) or _stripped(plain) != plain or _PARENT.search(_composed(plain))
    ):
        return None
    app = name.decode("ascii")
    as_sent = () if target == plain else (target,)
    loose = dict.fromkeys((*as_sent, *(end for reading in (*as_sent, plain) for end in _trimmed(reading))))
    internal = not _INTERNAL.isdisjoint([reading.lower() for reading in (plain, *loose)])
    loose.pop(plain, None)
    return ExAppPath(app, app.lower(), prefix, target, plain, (), tuple(loose), False, internal)


def read_carefully(path: bytes) -> ExAppPath | Denial:
    """Read any path, the ordinary ones as `locate` does."""
    if len(path) > UNUSUAL:
        return Denial(400, f"an unusual path of {len(path)} bytes, limit {UNUSUAL}")
    decode = lru_cache(maxsize=None)(unquote_to_bytes)  # for this path only
    deep = _decoded_fully(path, decode)
    if _PARENT.search(deep) or (not deep.isascii() and _PARENT.search(_composed(deep))):
        return Denial(400, "the path contains a parent-directory segment (..)", Offence.PROBE)
    if _CONTROL.search(decode(path)):
        return Denial(400, "the path contains a control character")
    if _OVERLONG.search(deep) or _PERCENT_U.search(deep):
        return Denial(400, "the path contains a character in an encoding that is not UTF-8")
    found = _PREFIX.search(path)
    stripped = found is None
    found = found or _FIRST.match(path)
    if found is None:
        return Denial(404, NO_APP, Offence.REFUSAL)
    name, target = found[1], path[found.end() :] or b"/"
    if not _APP.match(name):
        if stripped:
            return Denial(404, NO_APP, Offence.REFUSAL)
        if _SEPARATOR.search(name):
            return Denial(400, "the ExApp's id in the path contains an encoded slash or a backslash", Offence.REFUSAL)
        return Denial(404, "the path names no possible ExApp id", Offence.REFUSAL)
    if _AUTHORITY.match(_decoded_fully(target, decode)):
        return Denial(400, "what follows the ExApp's id begins with two slashes, which may be read as a host")
    prefix = b"/exapps/" + name if stripped else path[: found.end()]
    return _read(name.decode("ascii"), prefix, target, stripped, decode)


def _read(app: str, prefix: bytes, target: bytes, stripped: bool, decode: Step) -> ExAppPath | Denial:
    plain = _resolved(decode(target))
    readings = _closure(target, (decode, *_STEPS))
    if readings is None:
        return Denial(400, "the path can be read in too many ways")
    as_sent = () if _NEEDLESS.search(target) else _closure(target, _STEPS_AS_SENT) or ()
    others = [reading for reading in readings if reading not in as_sent or decode(reading) == reading]
    loose = dict.fromkeys((*readings, *(end for reading in readings for end in _trimmed(reading))))
    return ExAppPath(
        app=app,
        app_id=app.lower(),
        prefix=prefix,
        target=target,
        plain=plain,
        others=tuple(reading for reading in others if reading != plain),
        loose=tuple(reading for reading in loose if reading != plain and reading not in others),
        doubtful=_SEPARATOR.search(target) is not None,
        internal=not _INTERNAL.isdisjoint(reading.lower() for reading in loose),
        stripped=stripped,
    )


def _decoded_fully(path: bytes, decode: Step) -> bytes:
    """Percent-decode until nothing changes, at most DECODINGS times."""
    for _ in range(DECODINGS):
        decoded = decode(path)
        if decoded == path:
            break
        path = decoded
    return path


def _composed(path: bytes) -> bytes:
    """Return full-width and similar letters as plain ones."""
    return normalize("NFKC", path.decode("utf-8", "replace")).encode()


def _closure(target: bytes, steps: Iterable[Step]) -> dict[bytes, None] | None:
    """Return everything that `target` becomes when the steps are taken in any order; None if that is too much."""
    most = max(4, min(READINGS, READ_BYTES // len(target)))
    readings = {target: None}
    new = [target]
    while new:
        reading = new.pop()
        for step in steps:
            read = step(reading) or b"/"
            if read not in readings:
                if len(readings) == most:
                    return None
                readings[read] = None
                new.append(read)
    return readings


def _resolved(path: bytes) -> bytes:
    """Return the path without empty and "." segments; a "/" at the end stays."""
    return _merged(_without_dots(path))


def _without_dots(path: bytes) -> bytes:
    if b"/." not in path:
        return path
    without = _DOTS.sub(b"", path)
    return without + b"/" if path.endswith(b"/.") else without or b"/"


def _merged(path: bytes) -> bytes:
    return _SLASHES.sub(b"/", path) if b"//" in path else path


def _separators_kept(path: bytes) -> bytes:
    """Return the path with everything decoded except %2F."""
    kept = _ENCODED_SEPARATOR.sub(b"%25", path)
    return path if kept == path else unquote_to_bytes(kept)


def _slashed(path: bytes) -> bytes:
    return path.replace(b"\\", b"/")


def _without_parameters(path: bytes) -> bytes:
    return _PARAMETERS.sub(b"", path) if b";" in path else path


def _without_last_parameters(path: bytes) -> bytes:
    return _LAST_PARAMETERS.sub(b"", path) if b";" in path else path


def _without_authority(path: bytes) -> bytes:
    found = _AUTHORITY.match(path)
    return path[found.end() :] if found else path


def _cut_at_parameters(path: bytes) -> bytes:
    return _ALL_PARAMETERS.sub(b"", path) if b";" in path else path


def _ended(path: bytes) -> bytes:
    return _END.sub(b"", path)


def _stripped(path: bytes) -> bytes:
    """Return the path without white space at the end, in its encoding, and without empty segments at the start.

    A "+" is white space to those who decode a path like a form.
    """
    if path.startswith((b"/ ", b"/+")):
        path = b"/" + path.lstrip(b"/ +")
    if path.isascii():
        return path.rstrip(b" +")
    try:
        return path.decode().rstrip(_BLANK).encode()
    except UnicodeDecodeError:
        return path.decode("latin-1").rstrip(_BLANK).encode("latin-1")


_BLANK = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + "\ufeff+"
_STEPS_AS_SENT = (
    _without_dots,
    _merged,
    _slashed,
    _without_parameters,
    _without_last_parameters,
    _cut_at_parameters,
    _without_authority,
)
_STEPS = (_separators_kept, _ended, _stripped, *_STEPS_AS_SENT)


def _trimmed(reading: bytes) -> Iterable[bytes]:
    """Return the same without slashes and dots at the ends, and as a comparison that ignores width and case sees it."""
    yield reading.rstrip(b"/") or b"/"
    yield b"/" + reading.strip(b"/. +")
    if not reading.isascii():
        folded = _composed(reading).decode().casefold()
        yield folded.rstrip(_BLANK).encode() or b"/"
        yield b"/" + folded.strip("/. +").encode()
