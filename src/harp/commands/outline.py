"""Every command with its options, read from their parsers, for completion and the manual."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from msgspec import Struct


class CommandOption(Struct, frozen=True):
    """An option or an argument of a command."""

    names: tuple[str, ...]  # "--json"; () = an argument by its place
    value: str  # what follows it, as "FILE"; "" = nothing does
    text: str
    choices: tuple[str, ...] = ()


class CommandOutline(Struct, frozen=True):
    """A command: `path` is how it is called after `harp`."""

    path: tuple[str, ...]
    text: str
    options: tuple[CommandOption, ...]
    parts: tuple[CommandOutline, ...]  # the commands below it

    def walk(self) -> Iterator[CommandOutline]:
        """This and all below it, in order."""
        yield self
        for part in self.parts:
            yield from part.walk()

    @property
    def words(self) -> tuple[str, ...]:
        """What may follow its name."""
        below = [part.path[-1] for part in self.parts]
        chosen = [choice for option in self.options if not option.names for choice in option.choices]
        return (*below, *chosen, *(name for option in self.options for name in option.names if name.startswith("--")))


def outline_of(parser: argparse.ArgumentParser, path: tuple[str, ...] = (), text: str = "") -> CommandOutline:
    """Read a parser. argparse has no public way to list what was added to it."""
    options, parts = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            parts = [outline_of(below, (*path, name), texts.get(name, "")) for name, below in action.choices.items()]
        elif action.help is not argparse.SUPPRESS:
            takes = action.nargs != 0
            choices = tuple(map(str, action.choices or ()))
            shown = action.metavar or ("{" + ",".join(choices) + "}" if choices else action.dest.upper())
            value = shown if takes and isinstance(shown, str) else ""
            options.append(CommandOption(tuple(action.option_strings), value, action.help or "", choices))
    return CommandOutline(path, text or parser.description or "", tuple(options), tuple(parts))
