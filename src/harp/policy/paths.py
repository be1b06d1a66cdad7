"""Where a request path leads: which ExApp, which target, and every way an ExApp could read that target.

Proxies and frameworks read the same bytes differently: some decode before they route, some merge slashes, some do
neither. So a path is read once in each way, here, and the access decision looks at all of them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from harp.policy.bans import Denial, Offence

CACHED_PATH = 256  # bytes; longer paths are read anew each time, so that the cache stays below a few MB
CACHED_PATHS = 4096
DECODINGS = 4  # rounds of percent-decoding in which `..` and internal endpoints are looked for

_PREFIX = re.compile(rb"(?:^|/)exapps/([^/]+)")
_FIRST = re.compile(rb"/+([^/]+)")
_APP = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")
_PARENT = re.compile(rb"(?:^|[/\\])\.\.(?:[/\\;]|$)")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_SEPARATOR = re.compile(rb"\\|%(?:2f|5c)", re.IGNORECASE)  # other than a plain "/"
_ENCODED_SEPARATOR = re.compile(rb"%(?=2f|5c)", re.IGNORECASE)
_PARAMETERS = re.compile(rb";[^/]*")  # of a segment; servlet containers route without them
_AUTHORITY = re.compile(rb"[/\\]{2,}[^/\\]*")  # libraries for URLs take this for a host
_INTERNAL = ([b"heartbeat"], [b"init"], [b"enabled"])  # the segments of AppAPI's own endpoints

NO_APP = "no /exapps/<app> in the path: does the reverse proxy strip /exapps, or send HaRP what is not for ExApps?"


class Spot(Struct, frozen=True):
    """A path that names an ExApp."""

    app: str  # as the URL spells it
    app_id: str  # lower-cased
    prefix: bytes  # what is removed, as a browser sees it: b"/exapps/hello"
    target: bytes  # raw, begins with "/"
    plain: bytes  # target percent-decoded once, without empty and "." segments
    others: tuple[bytes, ...]  # how else the ExApp may read it (not decoded, not resolved), when that differs
    doubtful: tuple[bytes, ...]  # readings in which an encoded slash or a backslash means something else
    internal: bool  # some spelling of /heartbeat, /init or /enabled
    stripped: bool  # /exapps was already gone: `app` is just the first segment, and may be anything


def locate(path: bytes) -> Spot | Denial:
    """Read a raw request path without its query."""
    return _remembered(path) if len(path) <= CACHED_PATH else _locate(path)


def _locate(path: bytes) -> Spot | Denial:
    deep = _decoded_fully(path)
    if _PARENT.search(deep):
        return Denial(400, "the path contains a parent-directory segment (..)", Offence.ATTACK)
    if _CONTROL.search(unquote_to_bytes(path)):
        return Denial(400, "the path contains a control character")
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
    app = name.decode("ascii")
    plain = _resolved(unquote_to_bytes(target))
    return Spot(
        app=app,
        app_id=app.lower(),
        prefix=b"/exapps/" + name if stripped else path[: found.end()],
        target=target,
        plain=plain,
        others=_others(target, plain),
        doubtful=_doubtful(target, plain),
        internal=_is_internal(_decoded_fully(target)),
        stripped=stripped,
    )


_remembered = lru_cache(CACHED_PATHS)(_locate)


def _decoded_fully(path: bytes) -> bytes:
    """Percent-decode until nothing changes, at most DECODINGS times."""
    for _ in range(DECODINGS):
        decoded = unquote_to_bytes(path)
        if decoded == path:
            break
        path = decoded
    return path


def _resolved(path: bytes) -> bytes:
    """Without empty and "." segments; a "/" at the end stays."""
    if b"//" not in path and b"/." not in path:
        return path
    segments = [segment for segment in path.split(b"/") if segment not in (b"", b".")]
    if segments and path.endswith((b"/", b"/.")):
        segments.append(b"")
    return b"/" + b"/".join(segments)


def _others(target: bytes, plain: bytes) -> tuple[bytes, ...]:
    decoded = unquote_to_bytes(target)
    readings = dict.fromkeys((target, decoded))
    if b";" in decoded:
        readings[_resolved(_PARAMETERS.sub(b"", decoded))] = None
    if _AUTHORITY.match(decoded):
        readings[_resolved(_without_authority(decoded))] = None
    return tuple(reading for reading in readings if reading != plain)


def _doubtful(target: bytes, plain: bytes) -> tuple[bytes, ...]:
    if not _SEPARATOR.search(target):
        return ()
    kept = unquote_to_bytes(_ENCODED_SEPARATOR.sub(b"%25", target))  # %2F stays %2F, everything else is decoded
    readings = dict.fromkeys((_resolved(kept), _resolved(plain.replace(b"\\", b"/"))))
    return tuple(reading for reading in readings if reading != plain)


def _without_authority(path: bytes) -> bytes:
    found = _AUTHORITY.match(path)
    return path[found.end() :] or b"/" if found else path


def _is_internal(target: bytes) -> bool:
    return any(_names_internal(reading) for reading in {target, _without_authority(target)})


def _names_internal(target: bytes) -> bool:
    segments = (segment.partition(b";")[0] for segment in target.lower().replace(b"\\", b"/").split(b"/"))
    return [segment for segment in segments if segment not in (b"", b".")] in _INTERNAL
