"""The words of the table: a row and its goal, a trial that fills rows, and how much effort to spend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

OURS = "ours"
EXAPP = "the ExApp itself"  # with nobody between it and the client

Figures = Mapping[str, float]  # contender -> median
Measure = Callable[[], Sequence[float]]  # one figure for each row of the trial
Contenders = Mapping[str, Measure]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours, divided by the figure of `of`, is to be `least` or more."""

    least: float
    of: str

    def reached(self, figures: Figures) -> float | None:
        """None when somebody was not measured."""
        if OURS not in figures or self.of not in figures:
            return None
        return figures[OURS] / figures[self.of]

    def met(self, reached: float) -> bool:
        return reached >= self.least

    def __str__(self) -> str:
        return f"≥ {self.least:.2f} of {self.of}"


@dataclass(frozen=True, slots=True)
class Limit:
    """Ours, or what it has more than the figure of `over`, is to be `most` or less."""

    most: float
    over: str = ""

    def reached(self, figures: Figures) -> float | None:
        """None when somebody was not measured."""
        if OURS not in figures or (self.over and self.over not in figures):
            return None
        return figures[OURS] - (figures[self.over] if self.over else 0.0)

    def met(self, reached: float) -> bool:
        return reached <= self.most

    def __str__(self) -> str:
        return f"≤ {self.most:g} over {self.over}" if self.over else f"≤ {self.most:g}"


Goal = Ratio | Limit


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    unit: str
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One experiment: every contender has `turns` turns, and each turn gives one figure for each of the rows.

    `prepare` makes ready what all turns need, and puts it away afterwards.
    """

    rows: tuple[Row, ...]
    prepare: Callable[[], AbstractContextManager[Contenders]]
    turns: int = 1


def single(
    row: Row, turns: int, contenders: Mapping[str, Callable[[], float]], warm_up: Callable[[], object] = lambda: None
) -> Trial:
    """A trial for one row. `warm_up` happens before the first turn, so that nobody pays for what is slow only once."""

    def measure(run: Callable[[], float]) -> Measure:
        return lambda: (run(),)

    @contextmanager
    def prepare() -> Iterator[Contenders]:
        warm_up()
        yield {name: measure(run) for name, run in contenders.items()}

    return Trial((row,), prepare, turns)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long, how often, how big."""

    rounds: int  # turns of each contender
    seconds: int  # of load in one turn; wrk counts whole ones
    big: str  # the file that goes through the tunnel
    growth_rounds: int  # a difference of a few per cent needs more turns
    idle: float  # seconds to watch an idle process
    starts: int  # of a process, for its start-up


QUICK = Effort(rounds=1, seconds=2, big="256m", growth_rounds=2, idle=10, starts=3)
FULL = Effort(rounds=3, seconds=6, big="1g", growth_rounds=7, idle=30, starts=7)
