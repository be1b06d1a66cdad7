"""`harp exapp -- COMMAND...`: what runs in an ExApp's container instead of frpc and its start script (A 8.1).

The command is the app. While it runs, our own client keeps its tunnel connected, configured by the same environment
variables that the script reads. As a container's first process it passes signals on and collects orphans; it ends when
the app ends, with the app's exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from harp.commands.arguments import reads
from harp.errors import SettingsError, words_of
from harp.logs import configure
from harp.loops import event_loop
from harp.net.targets import Tcp, Unix
from harp.policy.ports import SERVER_NAME
from harp.settings import Logs
from harp.settings.parsers import shown
from harp.tunnel.client.client import TunnelClient
from harp.tunnel.client.frpc_config import ClientConfig, ClientProxy, ClientTls
from harp.tunnel.client.servers import servers_of

CERTIFICATES = Path("/certs/frp")  # AppAPI has HaRP put them there before the container's first start (A 6.4)
DEFAULT_SOCKET = "/tmp/exapp.sock"  # noqa: S108 - the place that nc_py_api and every start script agree on (A 8.2)
NEEDED = ("HP_FRP_ADDRESS", "HP_FRP_PORT", "APP_ID", "APP_PORT")
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# As shells have them: bad usage, and a command that is not there or cannot be run.
USAGE, CANNOT_RUN, NOT_FOUND = 64, 126, 127

log = structlog.get_logger()


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    reads(parser, "APP_ID", "APP_PORT", "HP_EXAPP_SOCK", "HP_FRP_ADDRESS", "HP_FRP_PORT", "HP_SHARED_KEY")
    parser.usage = "harp exapp -- COMMAND [ARGUMENT...]"
    parser.add_argument("app", nargs="+", metavar="COMMAND", help="the app and its arguments")


def main(options: argparse.Namespace) -> int:
    """Run the app; return its exit code."""
    return run(options.app, os.environ)


def run(command: Sequence[str], env: Mapping[str, str], certificates: Path = CERTIFICATES) -> int:
    """Run the app, with a tunnel if the environment asks for one; return the exit code."""
    if not env.get("HP_SHARED_KEY"):  # deployed directly: the app listens on APP_HOST:APP_PORT itself
        return _replace_ourselves(command)
    try:
        config = configuration(env, certificates)
    except SettingsError as error:
        print("\n".join(f"harp exapp: {problem}" for problem in error.problems), file=sys.stderr)
        return USAGE
    configure(Logs(level="info", format="text"), [env["HP_SHARED_KEY"]])
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        return runner.run(_run(command, config))


def configuration(env: Mapping[str, str], certificates: Path) -> ClientConfig:
    """Return the tunnel of an ExApp (A 8.1): with mutual TLS when the directory of certificates exists at the start.

    Raises SettingsError naming every variable that is missing or wrong.
    """
    given = {name: env.get(name, "") for name in NEEDED}
    problems = [f"{name} is not set, while HP_SHARED_KEY is; AppAPI sets both" for name in NEEDED if not given[name]]
    port, remote_port = (_port(name, given[name], problems) for name in ("HP_FRP_PORT", "APP_PORT"))
    servers: tuple[Tcp, ...] = ()
    try:
        servers = servers_of(given["HP_FRP_ADDRESS"], port) if given["HP_FRP_ADDRESS"] else ()
    except ValueError as error:
        problems.append(f"HP_FRP_ADDRESS: {error}")
    if problems:
        raise SettingsError(problems)
    tls = ClientTls(
        ca=str(certificates / "ca.crt"),
        certificate=str(certificates / "client.crt"),
        key=str(certificates / "client.key"),
        server_name=SERVER_NAME,
    )
    return ClientConfig(
        server=servers[0],
        more=servers[1:],
        proxies=(ClientProxy(given["APP_ID"], remote_port, Unix(env.get("HP_EXAPP_SOCK") or DEFAULT_SOCKET)),),
        tls=tls if certificates.is_dir() else None,
        exit_on_failed_login=False,
        metas={"token": env["HP_SHARED_KEY"]},
    )


def _port(name: str, text: str, problems: list[str]) -> int:
    """Return a port number; 0, with a line in `problems`, if `text` is not a port. An empty one has one already."""
    if text.isdecimal() and text.isascii() and 1 <= int(text[:6]) <= 65535:
        return int(text)
    if text:
        problems.append(f"{name} is {shown(text)}; it must be a port number")
    return 0


def _replace_ourselves(command: Sequence[str]) -> int:
    """Replace this process with the app; returns only if there is no such command."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and what is ignored stays so across exec
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - the app is whatever the image says
    except OSError as error:
        return _cannot_run(command[0], error)


async def _run(command: Sequence[str], config: ClientConfig) -> int:
    """Run the app and its tunnel side by side, until the app ends."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def pass_on(number: signal.Signals) -> None:
        if not ended.done():  # afterwards its number may be somebody else's
            os.kill(app.pid, number)

    def collect() -> None:
        """Reap the app, and orphans until then; in a thread, because uvloop keeps SIGCHLD to itself."""
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == app.pid:
                loop.call_soon_threadsafe(ended.set_result, status)
                return

    for number in PASSED_ON:  # from now on none is lost: the loop looks at them when the app is there
        loop.add_signal_handler(number, pass_on, number)
    try:
        app = subprocess.Popen(command)  # noqa: ASYNC220, S603 - asyncio would wait for it, and we wait for all
    except OSError as error:
        return _cannot_run(command[0], error)
    threading.Thread(target=collect, daemon=True).start()
    log.info("tunnel starting", server=f"{config.server.host}:{config.server.port}", tls=config.tls is not None)
    tunnel = asyncio.create_task(TunnelClient(config).run())
    try:
        status = await ended
    finally:
        tunnel.cancel()
        await asyncio.wait((tunnel,))
    app.returncode = os.waitstatus_to_exitcode(status)  # it is gone; subprocess need not look for it
    return app.returncode if app.returncode >= 0 else 128 - app.returncode


def _cannot_run(name: str, error: OSError) -> int:
    print(f"harp exapp: {name}: {words_of(error)}", file=sys.stderr)
    return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
