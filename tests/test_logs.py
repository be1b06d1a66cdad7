"""The log: who reads it, what never gets into it."""

from __future__ import annotations

import errno
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec
import pytest
import structlog
from structlog.testing import capture_logs

from harp.errors import HarpError
from harp.logs import (
    HIDDEN,
    KINDS,
    PERIOD,
    RareWarnings,
    Redactor,
    Timestamps,
    change_level,
    configure,
    debugging,
    fingerprint,
    is_secret_name,
    level,
)
from harp.settings import Logs
from tests.fakes.clock import Clock

KEY = "correct horse battery staple"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Both logging systems as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


class Output(io.BytesIO):
    """Where the log goes."""

    @property
    def text(self) -> str:
        return self.getvalue().decode()

    @property
    def lines(self) -> list[dict[str, object]]:
        return [msgspec.json.decode(line, type=dict[str, object]) for line in self.getvalue().splitlines()]


def logging_to(output: Output, level: str = "info", style: str = "json") -> structlog.typing.FilteringBoundLogger:
    configure(Logs(level, style), [KEY], output)
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


class FullLog(io.BytesIO):
    """A disk without space."""

    tried = 0

    def write(self, data: object) -> int:
        self.tried += 1
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_cannot_be_written_fails_nobody() -> None:
    full = FullLog()
    configure(Logs("info", "json"), [KEY], full)
    structlog.get_logger().info("serving")
    logging.getLogger("asyncio").warning("slow")
    assert full.tried == 2


def test_the_level_of_loggers_in_use_can_be_changed() -> None:
    output = Output()
    logger = logging_to(output, "warning")
    logger.info("hidden")
    logger.warning("first")
    change_level("debug")
    logger.debug("second")
    logging.getLogger("asyncio").debug("third")
    assert (level(), debugging()) == ("debug", True)
    change_level("error")
    logger.warning("hidden")
    logging.getLogger("asyncio").warning("hidden")
    logger.error("fourth")
    assert [line["event"] for line in output.lines] == ["first", "second", "third", "fourth"]
    assert level() == "error"


def test_a_json_line_is_one_event_with_its_fields_and_the_time() -> None:
    output = Output()
    logging_to(output).info("request refused", app="hello", status=403, peer=("192.0.2.1", 5000))
    (line,) = output.lines
    assert output.text.startswith('{"time":"20')
    assert datetime.fromisoformat(str(line.pop("time"))).tzinfo is not None
    assert line == {
        "event": "request refused",
        "level": "info",
        "app": "hello",
        "status": 403,
        "peer": ["192.0.2.1", 5000],
    }


def test_text_is_one_line_for_people_without_colours_where_there_is_no_terminal() -> None:
    output = Output()
    logging_to(output, style="text").warning("request refused", app="hello", status=403)
    assert output.text.count("\n") == 1
    assert "[warning  ] request refused" in output.text
    assert "app=hello status=403" in output.text
    assert "\x1b" not in output.text


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_only_the_level_and_above_is_written(level: str, heard: list[str]) -> None:
    output = Output()
    log = logging_to(output, level)
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("event")
        getattr(logging.getLogger("a library"), name)("event")
    assert [line["level"] for line in output.lines] == [name for name in heard for _ in range(2)]


def test_libraries_are_heard_through_the_same_log_with_their_name() -> None:
    output = Output()
    logging_to(output)
    logging.getLogger("aiohttp.client").warning("%s failed", "GET")
    (line,) = output.lines
    assert (line["event"], line["level"], line["logger"]) == ("GET failed", "warning", "aiohttp.client")


def test_a_library_whose_format_does_not_fit_is_heard_anyway() -> None:
    output = Output()
    logging_to(output)
    logging.getLogger("library").warning("%s %s failed", *["GET"])
    assert output.lines[0]["event"] == "%s %s failed"


def test_a_libraries_critical_is_an_error_and_its_odd_levels_round_down() -> None:
    output = Output()
    logging_to(output, "debug")
    for number in (logging.CRITICAL, 25, 5):
        logging.getLogger("library").log(number, "event")
    assert [line["level"] for line in output.lines] == ["error", "info"]


def test_pythons_warnings_are_logged() -> None:
    output = Output()
    logging_to(output)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old" in str(output.lines[0]["event"])


def fail(text: str) -> None:
    raise HarpError(text)


def test_an_exception_is_logged_with_its_traceback_and_without_the_key() -> None:
    for style in ("json", "text"):
        output = Output()
        log = logging_to(output, style=style)
        try:
            fail(f"bad {KEY}")
        except HarpError:
            log.exception("failed")
        assert "Traceback" in output.text
        assert f"HarpError: bad {HIDDEN}" in output.text
        assert KEY not in output.text
        structlog.reset_defaults()


def test_a_client_cannot_write_lines_or_terminal_codes_into_a_text_log() -> None:
    output = Output()
    logging_to(output, style="text").info("request", path="/a\r\n2026 [info] forged\x1b[2J\x00\x9b")
    assert output.text.count("\n") == 1
    assert not {"\x1b", "\r", "\x00", "\x9b"} & set(output.text)


def test_bytes_and_odd_objects_are_written_as_text() -> None:
    for style in ("json", "text"):
        output = Output()
        logging_to(output, style=style).info("event", raw=b"/\xff", odd=object, lone="\udcff", error=ValueError("no"))
        assert "no" in output.text
        structlog.reset_defaults()


def test_a_time_has_milliseconds_and_its_offset_and_moves_with_the_clock() -> None:
    moments = (1767323045.678, 1767323045.999, 1767323046.0)
    clock = iter(moments)
    stamp = Timestamps(lambda: next(clock))
    for moment in moments:
        text = stamp()
        assert datetime.fromisoformat(text).timestamp() == moment
        assert len(text) == len("2026-01-01T23:34:05.678-03:30")


# --- redaction


def redacted(**fields: object) -> dict[str, object]:
    return dict(Redactor([KEY])(None, "info", fields))


@pytest.mark.parametrize(
    "name",
    [
        "harp-shared-key",
        "Authorization",
        "AUTHORIZATION-APP-API",
        "Cookie",
        "set-cookie",
        "token",
        "exapp_token",
        "password",
        "HP_SHARED_KEY",
        "X-Registry-Auth",
        "bearer_token",
        "client_secret",
    ],
)
def test_a_field_or_header_that_holds_a_secret_is_hidden_by_its_name(name: str) -> None:
    assert is_secret_name(name)
    assert redacted(**{name: "value"}) == {name: HIDDEN}
    assert redacted(headers={name: "value"}) == {"headers": {name: HIDDEN}}
    assert redacted(headers=[(name, "value")]) == {"headers": [(name, HIDDEN)]}
    assert redacted(headers=[(name.encode(), b"value")]) == {"headers": [(name, HIDDEN)]}


def test_harmless_fields_stay_as_they_are() -> None:
    fields = {"app": "hello", "status": 200, "ok": True, "seconds": 0.5, "nothing": None, "author": "ada"}
    assert redacted(**fields) == fields


def test_the_text_of_a_known_secret_is_hidden_wherever_it_stands() -> None:
    assert redacted(
        event=f"key {KEY} refused", raw=f"x{KEY}".encode(), error=HarpError(KEY), parts=[KEY], deep={"a": [{"b": KEY}]}
    ) == {
        "event": f"key {HIDDEN} refused",
        "raw": f"x{HIDDEN}",
        "error": HIDDEN,
        "parts": [HIDDEN],
        "deep": {"a": [{"b": HIDDEN}]},
    }


def test_a_value_nested_too_deep_is_shown_as_text_without_the_key() -> None:
    deep: object = KEY
    for _ in range(50):
        deep = [deep]
    assert KEY not in repr(redacted(deep=deep))


def test_a_number_is_no_secret_and_a_very_short_secret_hides_nothing() -> None:
    assert redacted(token=3) == {"token": 3}
    assert Redactor(["a"])(None, "info", {"event": "abc"}) == {"event": "abc"}


def test_a_fingerprint_tells_secrets_apart_and_is_short() -> None:
    assert fingerprint(KEY) == fingerprint(KEY)
    assert fingerprint(KEY) != fingerprint(KEY + " ")
    assert len(fingerprint(KEY)) == 8
    fingerprint("not UTF-8 \udcff")


# --- warnings that repeat


class Later:
    """A loop's call_later that waits for the test."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        assert seconds == PERIOD
        self.calls.append(call)

    def elapse(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def test_the_first_warning_of_a_kind_is_a_line_of_its_own() -> None:
    rare = RareWarnings(Clock())
    with capture_logs() as logs:
        rare.warning("tunnel refused", "the token is wrong", "192.0.2.1", client="frpc 0.61")
        rare.warning("tunnel refused", "the token is wrong", "192.0.2.2")
        rare.warning("tunnel refused", "no TLS", "192.0.2.1")
        rare.warning("disk full", "no space")
    assert logs == [
        {
            "event": "tunnel refused",
            "log_level": "warning",
            "reason": "the token is wrong",
            "source": "192.0.2.1",
            "client": "frpc 0.61",
        },
        {
            "event": "tunnel refused",
            "log_level": "warning",
            "reason": "the token is wrong",
            "source": "192.0.2.2",
        },
        {"event": "tunnel refused", "log_level": "warning", "reason": "no TLS", "source": "192.0.2.1"},
        {"event": "disk full", "log_level": "warning", "reason": "no space"},
    ]


def test_repeats_within_a_minute_are_counted_and_told_with_the_next_one() -> None:
    clock = Clock()
    rare = RareWarnings(clock)
    with capture_logs() as logs:
        for number in range(100):
            rare.warning("refused", "slow", "192.0.2.1", number=number)
        assert len(logs) == 1
        clock.move(PERIOD)
        rare.warning("refused", "slow", "192.0.2.1", number=100)
        rare.warning("refused", "slow", "192.0.2.1", number=101)
    assert [(line["number"], line.get("times", 1)) for line in logs] == [(0, 1), (100, 100)]


def test_what_was_swallowed_is_told_when_the_minute_is_over_though_nothing_follows() -> None:
    clock, later = Clock(), Later()
    rare = RareWarnings(clock, later)
    with capture_logs() as logs:
        for number in range(5):
            rare.warning("refused", "slow", number=number)
        clock.move(PERIOD)
        later.elapse()
        assert [(line["number"], line.get("times", 1)) for line in logs] == [(0, 1), (4, 4)]
        clock.move(PERIOD)
        later.elapse()
        assert len(logs) == 2
    assert later.calls == []  # nothing left to tell, so nothing is awaited


def test_many_sources_share_a_line_of_others() -> None:
    clock, later = Clock(), Later()
    rare = RareWarnings(clock, later)
    with capture_logs() as logs:
        for number in range(5000):
            rare.warning("refused", "slow", f"2001:db8::{number:x}")
        assert len(logs) == KINDS + 1
        assert (logs[-1]["reason"], logs[-1]["source"]) == ("various", "others")
        rare.warning("another event", "slow")
        assert len(logs) == KINDS + 2
        clock.move(PERIOD)
        later.elapse()
        assert logs[-1]["times"] == 5000 - KINDS - 1
        clock.move(PERIOD)
        rare.warning("refused", "slow", "192.0.2.1")
    assert logs[-1]["source"] == "192.0.2.1"


def test_warnings_that_are_told_in_time_stay_lines_of_their_own() -> None:
    clock = Clock()
    rare = RareWarnings(clock)
    with capture_logs() as logs:
        for _ in range(3):
            for number in range(KINDS):
                rare.warning("refused", "slow", f"192.0.2.{number}")
            clock.move(PERIOD)
    assert len(logs) == 3 * KINDS
