"""The command line. Each command imports what it needs when it runs: `harp health` is called every ten seconds."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harp import __version__

SHARED_KEY = "HP_SHARED_KEY"
LONG_SECRET = 12  # characters; whoever has the fingerprint of a shorter one can find it by trying


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    if os.getpid() == 1:  # a container's first process ignores TERM until it says otherwise; we are still loading then
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `harp check | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harp",
        description="The gateway that lets a Nextcloud run ExApps.",
        epilog="Settings come from the environment; `harp check` shows them.",
    )
    parser.add_argument("--version", action="version", version=f"harp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, function: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=function)
        return sub

    command("run", _run, "serve, with settings from the environment")
    command("check", _check, "show every problem of the settings, and the settings in effect")
    command("health", _health, "ask the HaRP that runs with these settings whether it is healthy")
    demo = command("demo", _demo, "serve a sample ExApp behind a tunnel, with a stand-in for Nextcloud")
    demo.add_argument("--port", type=_port, default=8780, help="HTTP port on 127.0.0.1 (default 8780)")
    demo.add_argument("--frp-port", type=_port, default=8782, help="tunnel port on 127.0.0.1 (default 8782)")
    demo.add_argument("--admin-port", type=_port, default=8200, help="admin port on 127.0.0.1 (default 8200)")
    tunnel = command("tunnel", _tunnel, "connect a local service to a HaRP, as frpc does")
    tunnel.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="frpc's TOML configuration")
    _add_engine_commands(command("engine", _engine, "list, check or add the Docker engines of this HaRP"))
    exapp = command("exapp", _exapp, "run an ExApp in its container, with a tunnel as its environment says")
    exapp.usage = "harp exapp -- COMMAND [ARGUMENT...]"
    exapp.add_argument("app", nargs="+", metavar="COMMAND", help="the app and its arguments")
    command("version", _version, "print the version")
    return parser


def _add_engine_commands(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    actions.add_parser("list", help="show what the running HaRP knows of its engines")
    checked = actions.add_parser("check", help="ask engines, through the running HaRP")
    checked.add_argument("ports", type=_port, nargs="*", metavar="PORT", help="engine ports (default: every known one)")
    added = actions.add_parser("add", help="write what a remote host needs to offer its engine")
    added.add_argument("name", metavar="NAME", help="a name for the engine")
    added.add_argument("--port", type=_port, help="engine port (default: the first free one from 24001)")
    added.add_argument("--address", metavar="HOST[:PORT]", help="of this HaRP's tunnels, as the remote host reaches it")
    added.add_argument("--output", type=Path, metavar="DIRECTORY", help="a new directory (default: ./NAME)")
    added.add_argument("--image", default="appapi-harp", help="of HaRP, on the remote host (default appapi-harp)")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    from harp.errors import SettingsError  # noqa: PLC0415
    from harp.settings import load  # noqa: PLC0415

    try:
        settings = load(os.environ)
    except SettingsError as error:
        _say_problems(error.problems)
        return 1
    from harp.app import run  # noqa: PLC0415 - loads everything

    return run(settings)


def _check(options: argparse.Namespace) -> int:
    return check(os.environ)


def check(env: Mapping[str, str]) -> int:
    """Print what there is to say about the settings in `env` and the files they name; 1 when they cannot be used.

    No secret is printed.
    """
    from harp.commands.check import problems_of  # noqa: PLC0415
    from harp.settings import examine  # noqa: PLC0415

    reading = examine(env)
    problems = (*reading.problems, *problems_of(reading.settings))
    print("Settings in effect (* = given, others are defaults):")
    width = max(len(value.name) for value in reading.values)
    for value in reading.values:
        text = _described_secret(value.text) if value.secret else value.text
        print(f"{'*' if value.given else ' '} {value.name:<{width}}  {text or 'none'}")
    if reading.settings.shared_key and not any(value.secret for value in reading.values if value.name == SHARED_KEY):
        print(f"  {'(the key in the file)':<{width}}  {_described_secret(reading.settings.shared_key)}")
    if reading.warnings:
        print(f"\n{_count(reading.warnings, 'warning')}:")
        print("\n".join(f"  {warning}" for warning in reading.warnings))
    sys.stdout.flush()
    if problems:
        _say_problems(problems)
        return 1
    print("\nThese settings can be used.")
    return 0


def _described_secret(secret: str) -> str:
    from harp.logs import fingerprint  # noqa: PLC0415

    if len(secret) < LONG_SECRET:
        return f"{len(secret)} characters"
    return f"{len(secret)} characters, fingerprint {fingerprint(secret)}"


def _say_problems(problems: Sequence[str]) -> None:
    print(f"\n{_count(problems, 'problem')} with the settings:", file=sys.stderr)
    print("\n".join(f"  {problem}" for problem in problems), file=sys.stderr)


def _count(things: Sequence[str], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _health(options: argparse.Namespace) -> int:
    from harp.commands.health import problem_of  # noqa: PLC0415
    from harp.errors import SettingsError  # noqa: PLC0415
    from harp.settings import load  # noqa: PLC0415

    try:
        problem = problem_of(load(os.environ))
    except SettingsError as error:
        problem = "; ".join(error.problems)
    print(f"unhealthy: {problem}" if problem else "healthy")
    return 1 if problem else 0


def _demo(options: argparse.Namespace) -> int:
    from harp.commands.demo import Options, run  # noqa: PLC0415

    return run(Options(options.port, options.frp_port, options.admin_port))


def _tunnel(options: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415

    from harp.errors import HarpError  # noqa: PLC0415
    from harp.logs import configure  # noqa: PLC0415
    from harp.loops import event_loop  # noqa: PLC0415
    from harp.settings import Logs  # noqa: PLC0415
    from harp.tunnel.client import frpc_config  # noqa: PLC0415
    from harp.tunnel.client.client import TunnelClient  # noqa: PLC0415

    async def serve() -> int:
        client = asyncio.ensure_future(TunnelClient(config).run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, client.cancel)
        await asyncio.wait((client,))
        return 0 if client.cancelled() else client.result()

    try:
        config = frpc_config.load(options.config, os.environ)
        configure(Logs(level="info", format="text"), [config.token, *config.metas.values()])
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            return runner.run(serve())
    except HarpError as error:
        print(error, file=sys.stderr)
        return 1


def _engine(options: argparse.Namespace) -> int:
    from harp.commands import engine  # noqa: PLC0415
    from harp.errors import SettingsError  # noqa: PLC0415
    from harp.settings import load  # noqa: PLC0415

    try:
        settings = load(os.environ)
    except SettingsError as error:
        _say_problems(error.problems)
        return 1
    match options.action:
        case "list":
            return engine.show(settings)
        case "check":
            return engine.check(settings, options.ports)
    directory = options.output or Path(options.name)
    return engine.add(settings, engine.Bundle(options.name, directory, options.port, options.address, options.image))


def _exapp(options: argparse.Namespace) -> int:
    from harp.commands.exapp import run  # noqa: PLC0415

    return run(options.app, os.environ)


def _version(options: argparse.Namespace) -> int:
    print(f"harp {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
