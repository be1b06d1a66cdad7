"""Runs the gateway: signals, systemd, and the version that it may take over from."""

from __future__ import annotations

import asyncio
import os
import signal

import structlog

from harp.app import Harp
from harp.errors import HarpError
from harp.lazy import load_module
from harp.logs import configure, drain
from harp.loops import event_loop
from harp.membership import Membership
from harp.net.listen import Bind, ListenError, bound_sockets
from harp.settings import Settings
from harp.systemd import notify

STARTED_WITH = ("HARP_TAKES_OVER", "LISTEN_FDS")  # variables that say so when there are sockets for us already

log = structlog.get_logger()


def run(settings: Settings) -> int:
    """Serve until asked to stop; return the exit code. TERM, INT and USR1 drain, a second one stops at once.

    USR2 has a new version take over.
    """
    configure(settings.logs, settings.secrets)
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        status = runner.run(_serve(settings))
        drain()
        # Not by returning: that waits for every thread, and a name server that hangs keeps one for many seconds.
        os._exit(status)


async def _serve(settings: Settings) -> int:
    member: Membership | None = None
    bind: Bind = bound_sockets
    if any(name in os.environ for name in STARTED_WITH):
        try:
            given, predecessor = (await load_module("harp.upgrade")).given_at_start(settings, os.environ)
        except ListenError as error:
            log.error("cannot start", reason=str(error))
            return 1
        bind = given.bind
        if predecessor is not None:
            member = (await load_module("harp.kin")).Kin(predecessor)
    return await serve_until_told(Harp(settings, bind, member))


async def serve_until_told(harp: Harp, told: asyncio.Event | None = None) -> int:
    """Serve until a signal comes, or `told` is set; return the exit code."""
    loop = asyncio.get_running_loop()
    told = harp.told = told or harp.told
    again = asyncio.Event()

    def stop() -> None:
        (again if told.is_set() else told).set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, harp.reload)
    loop.add_signal_handler(signal.SIGUSR2, harp.upgrade_by_signal)
    try:
        await harp.start()
    except HarpError as error:
        fix = {"fix": "`harp doctor` names the variable and what to do"} if isinstance(error, ListenError) else {}
        log.error("cannot start", reason=str(error), **fix)
        harp.failed(str(error))
        return 1
    notify(f"READY=1\nMAINPID={os.getpid()}")
    await told.wait()
    log.info("stopping")
    if not harp.succeeded:
        notify("STOPPING=1")
    stopping = asyncio.ensure_future(harp.stop())
    hurry = asyncio.ensure_future(again.wait())
    await asyncio.wait((stopping, hurry), return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if not stopping.done():
        harp.hurry()
    await stopping
    return 0
