"""`harp manual`: the manual page, generated from the commands' own parsers and the table of variables."""

from __future__ import annotations

import argparse
import re

from harp import __version__
from harp.commands.outline import CommandOption, CommandOutline, outline_of
from harp.settings import examine

INTRODUCTION = (
    "HaRP is the gateway between a Nextcloud and its ExApps: it answers /exapps/ for browsers and AppAPI, takes the "
    "tunnels of ExApps and engines, and deploys ExApps on Docker and Kubernetes. `harp run` is the gateway itself; "
    "the other commands examine, change and set up one that runs with the same environment."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """There are none; `harp manual | man -l -` shows the page."""


def main(options: argparse.Namespace) -> int:
    """Print the page in the language of man; return the exit code."""
    from harp.__main__ import whole_parser  # noqa: PLC0415 - it finds this module

    print(page(outline_of(whole_parser())), end="")
    return 0


def page(outline: CommandOutline) -> str:
    """Return the page as roff, in the macros of man(7)."""
    lines = [
        f'.TH HARP 1 "" "HaRP {__version__}" "HaRP"',
        ".SH NAME",
        "harp \\- the gateway that lets a Nextcloud run ExApps",
        ".SH SYNOPSIS",
        ".B harp",
        "COMMAND [OPTIONS]",
        ".SH DESCRIPTION",
        escaped(INTRODUCTION),
        ".SH COMMANDS",
    ]
    for command in outline.walk():
        if command.path:
            lines += _command(command)
    lines += [".SH ENVIRONMENT", "Every setting is a variable; `harp check` shows what is in effect."]
    for value in examine({}).values:
        lines += [".TP", f".B {escaped(value.name)}", f"default: {escaped(value.text or 'none')}"]
    lines += [
        ".SH EXIT STATUS",
        "0 when all is well, 1 when something is not, 2 for options that do not exist.",
        ".SH SEE ALSO",
        ".BR docker (1),",
        ".BR nginx (8)",
    ]
    return "\n".join(lines) + "\n"


def _command(command: CommandOutline) -> list[str]:
    places = [option.value for option in command.options if not option.names]
    synopsis = " ".join(("harp", *command.path, *places))
    lines = [f'.SS "{escaped(synopsis)}"', escaped(sentence(command.text))]
    for option in command.options:
        if "--help" not in option.names:
            lines += [".TP", f".B {escaped(_title(option))}", escaped(sentence(option.text))]
    return lines


def _title(option: CommandOption) -> str:
    return ", ".join(f"{name} {option.value}".strip() for name in option.names) or option.value


def sentence(text: str) -> str:
    """Return a text as a sentence."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") or not text else f"{text}."


def escaped(text: str) -> str:
    """Return text escaped for roff: no line begins with a command, and hyphens stay hyphens."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)
