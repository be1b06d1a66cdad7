"""`python -m benchmarks.members [--publish]`: measures and simulates several members; the table of docs/scaling.md.

Needs the frpc of `make frp`. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

import structlog
import uvloop
from tests.live.linked import linked_replicas
from tests.live.product import running
from tests.live.tunnels import SHIPPED, start_tunnel
from tests.live.workers import serving
from tests.live.world import TUNNEL_PORT, World

from benchmarks.client import Requester, get
from benchmarks.crowded import simulate
from benchmarks.scaling import PAGE, Costs, replaced, section
from harp.net.memory import resident

CONNECTIONS = 64
REQUESTS = 200  # of each connection, in a turn
TURNS = 5
Turn = dict[str, float]  # seconds of processor time for a request
TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.members", description=__doc__)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--tunnels", type=int, default=10_000)
    parser.add_argument("--publish", action="store_true", help="write the table to docs/scaling.md")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        crowd = runner.run(simulate(chosen.members, chosen.instances, chosen.tunnels))
    print(f"simulated in {resident() / 1e6:.0f} MB", file=sys.stderr)
    text = section(crowd, measured())
    print(text)
    if chosen.publish:
        PAGE.write_text(replaced(PAGE.read_text(), text))


def measured() -> Costs:
    """Return what requests cost two real workers, and two of three real replicas, with one real frpc each."""
    with tempfile.TemporaryDirectory(prefix="harp-members-") as name:
        directory = Path(name)
        world = World(directory)
        try:
            memory, near = _workers(world, directory)
            apart = _replicas(world, directory)
        finally:
            world.process.stop()
    for turn in (*near, *apart):
        print({what: f"{seconds * 1e6:.0f} µs" for what, seconds in turn.items()}, file=sys.stderr)
    local = median(turn["local"] for turn in (*near, *apart))
    return Costs(local, median(turn["relayed"] for turn in near), median(turn["relayed"] for turn in apart), memory)


def _workers(world: World, directory: Path) -> tuple[float, list[Turn]]:
    with (
        running(directory / "harp", world.nextcloud, HP_WORKERS="2", HP_LOG_LEVEL="warning") as product,
        serving(product, world, SHIPPED) as workers,
    ):
        holder = workers.holder()
        places = {"local": holder, "relayed": workers.other(holder)}

        def turn(pid: int) -> float:
            return _cost(lambda: workers.connect(pid), workers.pids())

        memory = median(line.memory for line in workers.members())
        return memory, [{what: turn(pid) for what, pid in places.items()} for _ in range(TURNS)]


def _replicas(world: World, directory: Path) -> list[Turn]:
    with (
        linked_replicas(directory, world.nextcloud, HP_LOG_LEVEL="warning") as replicas,
        start_tunnel(replicas["c"], SHIPPED, "hello", TUNNEL_PORT, world.socket),
    ):
        replicas.until_served("hello", "ac")
        pids = [replicas[name].process.pid for name in "ac"]
        places = {"local": "c", "relayed": "a"}

        def turn(name: str) -> float:
            return _cost(lambda: replicas.client(name), pids)

        return [{what: turn(name) for what, name in places.items()} for _ in range(TURNS)]


def _cost(connect: Callable[[], HTTPConnection], pids: list[int]) -> float:
    """Return the processor time that all these processes take for a request."""
    clients = [connect() for _ in range(CONNECTIONS)]
    for client in clients:
        if client.sock is None:
            client.connect()
    before = sum(map(_processor_time, pids))
    asyncio.run(_ask([client.sock for client in clients]))
    spent = sum(map(_processor_time, pids)) - before
    for client in clients:
        client.close()
    return spent / (CONNECTIONS * REQUESTS)


async def _ask(sockets: list[socket.socket]) -> None:
    async def repeat(sock: socket.socket) -> None:
        sock.setblocking(False)
        _, requester = await asyncio.get_running_loop().create_connection(Requester, sock=sock.dup())
        for _ in range(REQUESTS):
            assert await requester.send(get("/exapps/hello/public")) == 200
        requester.close()

    await asyncio.gather(*(repeat(sock) for sock in sockets))


def _processor_time(pid: int) -> float:
    """Return the seconds that a process has run."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


if __name__ == "__main__":
    main()
