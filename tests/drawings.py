"""Life cycles as they are drawn in the docs: a Mermaid diagram, made from the table {State: {Event: State}}."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


def state_diagram(table: Mapping[S, Mapping[E, S]]) -> str:
    """The lines of a Mermaid block: states by their names, events by their values, or by their names where those are
    numbers; the first state begins."""
    states = list(table)
    lines = ["stateDiagram-v2", f"    [*] --> {states[0].name}"]
    for state in states:
        by_target: dict[S, list[str]] = {}
        for event, target in table[state].items():
            words = event.value if isinstance(event.value, str) else event.name.lower().replace("_", " ")
            by_target.setdefault(target, []).append(words)
        lines += [
            f"    {state.name} --> {target.name}: {' / '.join(events)}"
            for target, events in by_target.items()
            if target is not state
        ]
    return "\n".join(lines)
