"""The log: one event per fact, with fields, on stderr; text for people or JSON lines for machines.

Everything that is logged, by us or by a library through the standard `logging`, goes through the same steps: filtered
by level, which costs next to nothing, then cleaned of secrets, then written.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from hashlib import sha256
from time import localtime, strftime, time
from typing import BinaryIO, TextIO, cast

import msgspec
import structlog
from msgspec import Struct
from structlog.typing import EventDict, Processor, WrappedLogger

from harp.output import Outputs, Sink
from harp.settings import Logs

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
HIDDEN = "[hidden]"
SHORTEST_SECRET = 6  # characters; shorter ones would hide half of every message
DEEPEST = 4  # levels of lists and mappings that are looked into
PERIOD = 60.0  # seconds between two lines of one repeating warning
REMEMBERED = 64  # warnings that are kept for those who ask later
KINDS = 32  # lines of one repeating warning within a period
SECRET_NAMES = frozenset(
    (
        "authorization",
        "authorization_app_api",
        "cookie",
        "credentials",
        "key",
        "passphrase",
        "password",
        "private_key",
        "privilege_key",
        "proxy_authorization",
        "secret",
        "set_cookie",
        "shared_key",
        "harp_shared_key",
        "hp_shared_key",
        "token",
        "exapp_token",
        "x_registry_auth",
    )
)
INSTANCE: ContextVar[str] = ContextVar("instance", default="")  # whose work this is, where there are several Nextclouds
SECRET_ENDINGS = ("_token", "_secret", "_password", "_key", "_passphrase")


def fingerprint(secret: str) -> str:
    """Eight hexadecimal digits that distinguish two secrets and say nothing else about a long one."""
    return sha256(secret.encode(errors="surrogateescape")).hexdigest()[:8]


def configure(
    logs: Logs, secrets: Iterable[str] = (), stream: BinaryIO | None = None, fields: Mapping[str, object] | None = None
) -> None:
    """Log to `stream` (default stderr) as `logs` says. `secrets` are hidden wherever they occur in an event.

    `fields` are added to every event.

    Call it once, before the first event: loggers keep what they found at their first use.
    """
    file = stream or bytes_of(sys.stderr)
    json = logs.format == "json"
    hide(secrets)
    structlog.configure(
        processors=[
            add_time,
            add_instance,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            *([_adding(fields)] if fields else ()),
            _redactor,
            *(_json() if json else _text(colors=file is not None and file.isatty())),
        ],
        wrapper_class=_Logger,
        logger_factory=structlog.BytesLoggerFactory(cast(BinaryIO, output(file, json=json))),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [StandardLogs()]
    change_level(logs.level)
    logging.captureWarnings(True)


def hide(secrets: Iterable[str]) -> None:
    """Let these never be seen in the log."""
    _redactor.add(secrets)


def _adding(fields: Mapping[str, object]) -> Processor:
    def add(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event.update(fields)
        return event

    return add


class _Logger(structlog.make_filtering_bound_logger(logging.NOTSET)):  # type: ignore[misc] # made at run time
    """The logger of every module. Methods below the level do nothing, and so cost next to nothing.

    Loggers that are in use are of this class, so a new level is a change of its methods.
    """


def change_level(name: str) -> None:
    """Log from this level up, from now on."""
    number = LEVELS[name]
    filtering = structlog.make_filtering_bound_logger(number)
    for method in ("debug", "info", "warning", "warn", "error", "exception", "critical", "fatal", "log", "msg"):
        for one in (method, f"a{method}"):
            if hasattr(filtering, one):
                setattr(_Logger, one, getattr(filtering, one))
    logging.getLogger().setLevel(number)


def level() -> str:
    """Return the name of the level in effect."""
    number = logging.getLogger().getEffectiveLevel()
    return next((name for name, one in LEVELS.items() if one == number), "warning")


def output(stream: BinaryIO | None, *, json: bool) -> Sink:
    """Return what writes whole lines to `stream` and never waits for it. The lines it loses are counted in a line."""

    def notice(lines: int) -> bytes:
        """Return a log line past the log, which is what lost them."""
        reason = "the log was not read or could not be written"
        if json:
            line = {"time": timestamp(), "event": "log lines dropped", "level": "warning"}
            return msgspec.json.encode({**line, "lines": lines, "reason": reason}) + b"\n"
        return f"{timestamp()} [warning  ] log lines dropped lines={lines} reason='{reason}'\n".encode()

    return _outputs.to(stream, notice)


def bytes_of(standard: TextIO | None) -> BinaryIO | None:
    """Return a standard stream, for bytes; None when it was closed at the start (`2>&-`)."""
    return None if standard is None else standard.buffer


def debugging() -> bool:
    """Return whether debug lines are written. Ask once, before code on the request path builds them."""
    return logging.getLogger().isEnabledFor(logging.DEBUG)


def drain() -> None:
    """Wait for a moment until the lines logged so far are written, before the process ends."""
    _outputs.drain()


_outputs = Outputs()  # as the standard streams, of the process


def _json() -> list[Processor]:
    return [
        structlog.processors.JSONRenderer(lambda event, **_: msgspec.json.encode(event, enc_hook=repr)),
    ]


def _text(*, colors: bool) -> list[Processor]:
    render = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, timestamp_key="time"
    )
    return [
        escape,
        lambda logger, name, event: render(logger, name, event).encode(errors="backslashreplace"),
    ]


class Redactor:
    """The last line of defence: a processor that hides secrets which should never have got this far.

    By the name of a field or header, and by the text of the secrets that we know.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: list[str] = []
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Hide these as well."""
        known = {*self._secrets}
        self._secrets += [one for one in secrets if len(one) >= SHORTEST_SECRET and one not in known]

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {name: self._value(name, value, DEEPEST) for name, value in event.items()}

    def _value(self, name: str, value: object, depth: int) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if is_secret_name(name):
            return HIDDEN
        if isinstance(value, bytes | bytearray | memoryview):
            value = bytes(value).decode("utf-8", "backslashreplace")
        if isinstance(value, str):
            return self._text(value)
        if depth == 0:
            return self._text(repr(value))
        if isinstance(value, Mapping):
            return {self._name(key): self._value(self._name(key), item, depth - 1) for key, item in value.items()}
        if isinstance(value, Sequence | set | frozenset):
            return self._items(value, depth - 1)
        return self._text(str(value)) if isinstance(value, BaseException) else self._text(repr(value))

    def _items(self, items: Iterable[object], depth: int) -> list[object]:
        """Return the items of a list; one such as ("Cookie", "...") is a header and hidden by its name."""
        found: list[object] = []
        for item in items:
            if isinstance(item, tuple) and len(item) == 2:
                name = self._name(item[0])
                found.append((name, self._value(name, item[1], depth)))
            else:
                found.append(self._value("", item, depth))
        return found

    def _name(self, name: object) -> str:
        return self._text(name.decode("latin-1") if isinstance(name, bytes) else str(name))

    def _text(self, text: str) -> str:
        if not text.isascii():  # bytes of clients that are no UTF-8 must not break the log
            text = text.encode("utf-8", "backslashreplace").decode()
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        return text


_redactor = Redactor()  # of the process, as its log


class Timestamps:
    """The time at the beginning of every line: in the zone of TZ, with milliseconds and the offset from UTC.

    Remembers the text of a second: building it for every access line would cost 3 us.
    """

    def __init__(self, now: Callable[[], float] = time) -> None:
        self._now = now
        self._second = -1
        self._text = self._offset = ""

    def __call__(self) -> str:
        now = self._now()
        second = int(now)
        if second != self._second:
            moment = localtime(second)
            minutes = moment.tm_gmtoff // 60
            self._text = strftime("%Y-%m-%dT%H:%M:%S", moment)
            self._offset = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
            self._second = second
        return f"{self._text}.{int(now * 1000) % 1000:03}{self._offset}"


timestamp = Timestamps()


def add_time(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Processor: the time comes first, in JSON as well."""
    return {"time": timestamp(), **event}


def add_instance(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Processor: name the Nextcloud, where there are several."""
    name = INSTANCE.get()
    if name:
        event.setdefault("instance", name)
    return event


def is_secret_name(name: str) -> bool:
    """Return whether a field or header of that name contains a secret."""
    plain = name.lower().replace("-", "_")
    return plain in SECRET_NAMES or plain.endswith(SECRET_ENDINGS)


def escape(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Processor for text: a client must not write lines or terminal codes into the log by what it sends.

    Tracebacks keep their lines, their other control characters do not count as one line's text.
    """
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = printable(value, keep="\n" if name == "exception" else "")
    return event


def printable(text: str, keep: str = "") -> str:
    """`text` with what is not printable, but for the characters of `keep`, in the form of a Python literal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


class RecentWarning(Struct, frozen=True):
    """A warning as it was logged last."""

    at: float  # on the clock of RareWarnings
    event: str
    cause: str
    source: str
    fields: dict[str, object]


class RareWarnings:
    """Warnings that repeat: one line per event, cause and source in a minute, with the number of events it represents.

    An event has at most KINDS lines a minute, however many sources (a scanner's addresses) and causes there are: what
    is beyond them is one line from "others". With `later` (a loop's `call_later`), what was swallowed is reported when
    its minute is over; without, at the next warning of the kind.
    """

    def __init__(
        self,
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object] | None = None,
        instance: str = "",
    ) -> None:
        """`instance` is the Nextcloud that all of them are about, where there are several."""
        self._now = now
        self._about: dict[str, object] = {"instance": instance} if instance else {}
        self._later = later
        self._reporting = False  # a report is ahead
        self._events: dict[str, dict[tuple[str, str], _Kind]] = {}
        self._recent: dict[tuple[str, str, str], RecentWarning] = {}

    def warning(self, event: str, cause: str, source: str = "", **fields: object) -> None:
        """Log `event` with its `cause` as the reason, where it came from, and `fields`; or count it.

        `event` is a constant of the program; `times=N` in a line means that it represents N of them.
        """
        kinds = self._events.setdefault(event, {})
        fields = {**self._about, **fields}
        kind = kinds.get((cause, source))
        if kind is None and len(kinds) >= KINDS:
            self._report()
            if len(kinds) >= KINDS:
                cause, source, fields = "various", "others", self._about
                kind = kinds.get((cause, source))
        if kind is None:
            kind = kinds[cause, source] = _Kind(self._now(), fields)
            kind.log(event, cause, source, 1)
            self._remember(event, cause, source, fields)
            self._report_later()
            return
        kind.swallowed += 1
        kind.fields = fields
        if self._now() >= kind.logged + PERIOD:
            kind.log_swallowed(event, cause, source, self._now())
            self._remember(event, cause, source, fields)

    def recent(self, within: float) -> list[RecentWarning]:
        """Return the last warnings, at most REMEMBERED and not older than `within` seconds, the oldest first."""
        since = self._now() - within
        return [warned for warned in self._recent.values() if warned.at >= since]

    def _remember(self, event: str, cause: str, source: str, fields: dict[str, object]) -> None:
        self._recent.pop((event, cause, source), None)
        if len(self._recent) >= REMEMBERED:
            del self._recent[next(iter(self._recent))]
        self._recent[event, cause, source] = RecentWarning(self._now(), event, cause, source, fields)

    def _report_later(self) -> None:
        if self._later is not None and not self._reporting:
            self._reporting = True
            self._later(PERIOD, self._report_and_go_on)

    def _report_and_go_on(self) -> None:
        self._reporting = False
        self._report()
        if any(self._events.values()):
            self._report_later()

    def _report(self) -> None:
        """Log what was swallowed in minutes that are over, and forget the kinds that were silent."""
        now = self._now()
        for event, kinds in self._events.items():
            for (cause, source), kind in list(kinds.items()):
                if now < kind.logged + PERIOD:
                    continue
                if kind.swallowed:
                    kind.log_swallowed(event, cause, source, now)
                else:
                    del kinds[cause, source]


class _Kind:
    """One event with one cause and source."""

    __slots__ = ("fields", "logged", "swallowed")

    def __init__(self, logged: float, fields: dict[str, object]) -> None:
        self.logged = logged  # when, on the clock
        self.swallowed = 0  # since then
        self.fields = fields  # of the last one

    def log(self, event: str, cause: str, source: str, times: int) -> None:
        logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
        shown: dict[str, object] = {"source": source} if source else {}
        if times > 1:
            shown["times"] = times
        logger.warning(event, reason=cause, **{**self.fields, **shown})

    def log_swallowed(self, event: str, cause: str, source: str, now: float) -> None:
        self.log(event, cause, source, self.swallowed)
        self.logged, self.swallowed = now, 0


class StandardLogs(logging.Handler):
    """Passes records of the standard `logging` (asyncio, aiohttp, warnings) to our log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # a library's format and arguments do not fit: its words are better than none
            message = str(record.msg)
        logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
        logger.log(_level_of(record.levelno), message, logger=record.name, exc_info=record.exc_info or None)


def _level_of(number: int) -> int:
    """Return the nearest of our levels at or below the `number` of the standard library."""
    return max((level for level in LEVELS.values() if level <= number), default=logging.DEBUG)
