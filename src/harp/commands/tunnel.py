"""`harp tunnel`: our own tunnel client, configured by frpc's TOML."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

from harp.logs import configure
from harp.loops import event_loop
from harp.settings import Logs
from harp.tunnel.client import frpc_config
from harp.tunnel.client.client import TunnelClient
from harp.tunnel.client.frpc_config import ClientConfig


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="a TOML file as frpc reads it")


def main(options: argparse.Namespace) -> int:
    """Keep the tunnel connected until asked to stop; return the exit code. Raises HarpError."""
    config = frpc_config.load(options.config, os.environ)
    configure(Logs(level="info", format="text"), [config.token, *config.metas.values()])
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        return runner.run(_serve(config))


async def _serve(config: ClientConfig) -> int:
    client = asyncio.ensure_future(TunnelClient(config).run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, client.cancel)
    await asyncio.wait((client,))
    return 0 if client.cancelled() else client.result()
