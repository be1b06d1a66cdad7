"""The command line: finds the command and loads only its module, because `harp health` runs every ten seconds."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from harp import __version__
from harp.errors import HarpError, SettingsError

if TYPE_CHECKING:
    import argparse

# Name -> what it does; harp.commands.NAME, "_" for "-", has `arguments(parser)` and `main(options) -> exit code`.
COMMANDS = {
    "run": "start the gateway with the settings from the environment",
    "check": "show the settings in effect and every problem with them",
    "doctor": "find out what is wrong with this installation, why, and what to do about it",
    "health": "report whether the HaRP that runs with these settings is healthy",
    "setup": "print what to paste into reverse proxy, Nextcloud and environment to set HaRP up",
    "migrate": "show how to move here from the existing HaRP or docker-socket-proxy; changes nothing",
    "demo": "run a sample ExApp behind a tunnel, with a stand-in for Nextcloud",
    "dev": "put a program on this machine behind a HaRP, a real one or one with stand-ins, and show its requests",
    "tunnel": "connect a local service to a HaRP, as frpc does",
    "status": "report whether the running HaRP is well, and what it serves",
    "apps": "show the ExApps that the running HaRP knows, and what they have served",
    "requests": "show the last requests and failures, or requests as they come",
    "tunnels": "show the tunnel clients that are connected",
    "instances": "show the Nextclouds that the running HaRP serves, where there are several",
    "bans": "show banned addresses, and lift bans",
    "members": "show the processes that are this HaRP",
    "upgrade": "have the version that is installed now take over from the one that runs, without a lost request",
    "log-level": "change how much the running HaRP logs",
    "engine": "list, check, add, rotate, remove and register Docker engines",
    "exapp": "run an ExApp in its container, with a tunnel if its environment asks for one",
    "completion": "print the script with which a shell completes commands and options",
    "manual": "print the manual page: harp manual | man -l -",
    "version": "print the version",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    if os.getpid() == 1:  # a container's first process ignores TERM until it says otherwise; we are still loading then
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        _parser(arguments).print_help(sys.stderr)
        return 2
    try:
        if list(arguments) == ["run"]:
            _load_msgspec_alone()
            from harp.commands.run import serve  # noqa: PLC0415 - other commands do not need it

            return serve()
        options, unknown = _parser(arguments).parse_known_args(arguments)
        if unknown:
            options.refuse(f"unrecognized arguments: {' '.join(unknown)}")  # with the usage of the command
        return int(options.main(options))
    except HarpError as error:
        return failed(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `harp check | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _load_msgspec_alone() -> None:
    """Load msgspec without typing_extensions, of which it needs nothing with our Pythons: a third of a megabyte."""
    if "typing_extensions" in sys.modules:
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # so that importing it fails
    try:
        import_module("msgspec")
    finally:
        del sys.modules["typing_extensions"]


def failed(error: HarpError) -> int:
    """Print why a command has failed; return the exit code."""
    if isinstance(error, SettingsError):
        count = len(error.problems)
        print(f"{count} problem{'' if count == 1 else 's'} with the settings:", file=sys.stderr)
        print("\n".join(f"  {problem}" for problem in error.problems), file=sys.stderr)
    else:
        print(error, file=sys.stderr)
    return 1


def whole_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands, with all their options."""
    return _parser((), whole=True)


def _parser(arguments: Sequence[str], *, whole: bool = False) -> argparse.ArgumentParser:
    import argparse  # noqa: PLC0415 - takes memory that `harp run` would keep

    parser = argparse.ArgumentParser(
        prog="harp",
        description="The gateway that lets a Nextcloud run ExApps.",
        epilog="Settings come from environment variables; `harp check` shows them.",
    )
    parser.add_argument("--version", action="version", version=f"harp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    asked = next((argument for argument in arguments if not argument.startswith("-")), "")
    if asked and asked not in COMMANDS:
        parser.error(f"there is no command {asked!r}{_nearest(asked)}; `harp --help` shows all")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if whole or name == asked:
            module = import_module(f"harp.commands.{name.replace('-', '_')}")
            module.arguments(command)
            command.set_defaults(main=module.main, refuse=command.error)
    return parser


def _nearest(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - slow to import, rarely needed

    near = get_close_matches(name, COMMANDS, n=1)
    return f", did you mean {near[0]!r}?" if near else ""


if __name__ == "__main__":
    sys.exit(main())
