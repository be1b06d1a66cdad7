"""Reads variables one by one, and collects all problems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from msgspec import Struct

T = TypeVar("T")
Note = Callable[[str], None]
Parser = Callable[[str, Note], T]

QUOTES = "\"'“”„‟‘’‚‛«»`"


class Fault(ValueError):
    """A value that cannot be used; the text follows the variable's name."""


class Value(Struct, frozen=True):
    """One variable in effect. `text` of a secret is for fingerprints only."""

    name: str
    text: str
    given: bool
    secret: bool = False

    def __repr__(self) -> str:
        return f"Value({self.name!r})"


class VariableReader:
    """Reads variables one by one and collects problems, warnings and the values in effect."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.values: list[Value] = []

    def read(self, name: str, default: str, parse: Parser[T]) -> T:
        """Return the value of `name`; an absent or empty variable means `default`."""
        value = self.optional(name, parse, default)
        return parse(default, _ignore) if value is None else value

    def optional(self, name: str, parse: Parser[T], instead: str, *, empty_counts: bool = False) -> T | None:
        """Return the value of `name`, or None when it is absent, faulty, or empty unless `empty_counts`.

        `instead` says what None means, for people.
        """
        text = self._text(name)
        given = self.given(name) or (empty_counts and name in self._env)
        value = self._parse(name, text, parse) if given else None
        self.values.append(Value(name, instead if value is None else text, given=value is not None))
        return value

    def secret(self, name: str, parse: Parser[str]) -> str:
        """Return the secret in `name`, "" when it is absent or faulty. Spaces and quotes are left to the parser."""
        value = (self._parse(name, self.raw(name), parse) or "") if self.given(name) else ""
        self.values.append(Value(name, value or "not set", given=value != "", secret=value != ""))
        return value

    def _parse(self, name: str, text: str, parse: Parser[T]) -> T | None:
        try:
            return parse(text, lambda note: self.warn(name, note))
        except Fault as fault:
            self.problem(name, str(fault))
            return None

    def _text(self, name: str) -> str:
        """Return the text without surrounding spaces and quotes, "" when absent; quotes are warned of."""
        raw = self.raw(name).strip()
        text = raw.strip(QUOTES).strip()
        if text != raw:
            self.warn(name, "the quotes around the value were removed; in a compose list write it without quotes")
        return text

    def raw(self, name: str) -> str:
        """Return the text as it is, "" when absent."""
        return self._env.get(name, "")

    def given(self, name: str) -> bool:
        """Return whether the variable says anything."""
        return self.raw(name).strip().strip(QUOTES).strip() != ""

    def problem(self, name: str, text: str) -> None:
        """Add what makes a variable unusable."""
        self.problems.append(f"{name}: {text}")

    def warn(self, name: str, text: str) -> None:
        """Add a remark about a variable that is used nevertheless."""
        self.warnings.append(f"{name}: {text}")

    def warn_unknown(self, prefix: str, ignored: Iterable[str]) -> None:
        """Warn of every variable with `prefix` that nobody has read, with the nearest existing name."""
        known = {value.name for value in self.values}.union(ignored)
        unknown = sorted(name for name in self._env if name.startswith(prefix) and name not in known)
        if not unknown:
            return
        from difflib import get_close_matches  # noqa: PLC0415 - slow to import, rarely needed

        for name in unknown:
            near = get_close_matches(name, sorted(known), n=1, cutoff=0.75)
            self.warn(name, "is not a variable of HaRP" + (f"; did you mean {near[0]}?" if near else ""))


def _ignore(note: str) -> None:
    """Ignore remarks about defaults."""
