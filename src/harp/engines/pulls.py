"""Errors of pulls: an engine reports them inside an answer that began with 200, where AppAPI overlooks them.

The last error of each image is kept for the call that fails because of it: the create, seconds later.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from msgspec import Struct

from harp.engines.errors import EngineError
from harp.engines.replies import words
from harp.policy.registries import full_name
from harp.wire.decoding import decoded

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

KEPT = 120.0  # seconds
MOST_IMAGES = 64
LONGEST_LINE = 64 << 10  # bytes; longer ones are progress that nobody needs


class _Line(Struct, frozen=True):
    error: str = ""
    message: str = ""  # of an answer that is an error as a whole


class PullErrors:
    """The last error of each image's pull on one engine."""

    def __init__(self, engine: str, now: Callable[[], float]) -> None:
        self._engine = engine
        self._now = now
        self._errors: dict[str, tuple[float, str]] = {}

    def note(self, image: str, error: str) -> None:
        """Store and log what the engine reports about a pull."""
        log.warning("image pull failed", engine=self._engine, image=image, reason=error)
        key = full_name(image)
        self._errors.pop(key, None)
        while len(self._errors) >= MOST_IMAGES:
            del self._errors[next(iter(self._errors))]
        self._errors[key] = (self._now(), error)

    def forget(self, image: str) -> None:
        """A new pull begins."""
        self._errors.pop(full_name(image), None)

    def last(self, image: str) -> str:
        """Return the error of the last pull of `image`, "" if there was none or it was long ago."""
        at, error = self._errors.get(full_name(image), (0.0, ""))
        return error if self._now() - at < KEPT else ""


class PullReader:
    """Reads the answer to a pull while it is passed on."""

    def __init__(self, errors: PullErrors, image: str) -> None:
        self._errors = errors
        self._image = image
        self._line = b""
        errors.forget(image)

    def feed(self, data: bytes) -> None:
        """Look at the next bytes of the answer, sliced anyhow."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._read(line)
        if len(self._line) > LONGEST_LINE:
            self._line = b""

    def end(self) -> None:
        """The answer is complete; its last line may lack its end."""
        self._read(self._line)

    def broken(self, reason: str) -> None:
        """The answer has ended before it was complete."""
        self._errors.note(self._image, words(reason))

    def _read(self, line: bytes) -> None:
        if b'"error"' not in line and b'"message"' not in line:
            return
        try:
            said = decoded(line, _Line, EngineError)
        except EngineError:
            return
        if said.error or said.message:
            self._errors.note(self._image, words(said.error or said.message))
