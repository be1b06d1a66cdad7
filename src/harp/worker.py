"""One of several workers (HP_WORKERS): a whole gateway, linked with the others. `harp.forker` starts it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import suppress
from typing import Any

import structlog

from harp.app import Harp
from harp.cluster.members import Members
from harp.forker import Door, Post
from harp.logs import configure, drain
from harp.loops import event_loop
from harp.member import MemberGateway
from harp.net.listen import Bind, Listener
from harp.serving import serve_until_told
from harp.settings import Address, Settings, load
from harp.settings.sharing import share
from harp.supervisor import LONGEST
from harp.upgrade import LONGEST_REASON, UpgradeFailed
from harp.wire.member import Drained
from harp.worker_facts import WorkerFacts

log = structlog.get_logger()


class StandIn:
    """The listeners of a worker that is away, served here so that no client of its sockets waits."""

    def __init__(self, harp: Harp, bind: Bind) -> None:
        self._harp = harp
        self._bind = bind
        self._servers: list[Listener] = []
        self._frp: list[socket.socket] = []

    async def open(self) -> None:
        """Serve them."""
        self._servers = [*await self._harp.open_http(self._bind), *await self._harp.open_https(self._bind)]
        self._frp = self._bind(self._harp.settings.listen.frp)
        self._harp.tunnel.listen(self._frp)

    def close(self) -> None:
        """Leave them to their worker."""
        for server in self._servers:
            server.close()
        self._harp.tunnel.leave(self._frp)


class Worker(MemberGateway):
    """What makes a gateway one of several: the Membership of `Harp`, and the MembersOwner of its links.

    The worker with the lowest number of those that answer leads: it has the admin listener, and stands in for workers
    that do not. For a moment two may lead: all have the same sockets, and whoever is first accepts a connection.
    """

    over_tls = False

    def __init__(self, place: Post, settings: Settings) -> None:
        super().__init__()
        self.name = str(place.number)
        self.told = asyncio.Event()  # to stop
        self._place = place
        self._settings = settings
        self._control = socket.socket(fileno=place.control)
        self._control.setblocking(False)
        self._stand_ins: dict[int, StandIn] = {}
        self._arranging = asyncio.Lock()
        self._stopping = False
        self._leading: asyncio.Task[None] | None = None
        self._upgrade: asyncio.Future[int] | None = None

    def bind(self, addresses: tuple[Address, ...]) -> list[socket.socket]:
        """As `Bind`: our own sockets."""
        return self._bind_of(self._place.doors[self._place.number])(addresses)

    # As Membership

    def facts(self, harp: Harp) -> WorkerFacts:
        """As Membership."""
        members = Members(self.name, self, harp.deadlines, harp.turns, self._settings.tunnel)
        facts = WorkerFacts(harp, members, len(self._place.doors))
        self.share(harp, members, facts)
        return facts

    async def prepare(self) -> None:
        """As Membership."""

    async def join(self, harp: Harp) -> None:
        """As Membership."""
        await self.attach()
        for member, (descriptor, serial) in self._place.links.items():
            await self.members.link(member, socket.socket(fileno=descriptor), serial)
        asyncio.get_running_loop().add_reader(self._control, self._heard)
        await self.members.greeted()
        for member, link in list(self.members.links.items()):
            if not member.isdecimal():
                link.tell(Drained())  # those of the version before need not wait until we are

    async def meet(self) -> None:
        """As Membership."""

    def begin(self) -> None:
        """The gateway serves."""
        self._say({"ready": True})
        self.links_changed()
        self._tasks.start(self.members.watch())

    def stop_accepting(self) -> bool:
        """As Membership: nobody listens on sockets that all workers have left."""
        self._stopping = True
        for stand_in in self._stand_ins.values():
            stand_in.close()
        self._stand_ins.clear()
        for door in self._place.doors:
            for descriptor in (*door.http, *door.https, *door.frp):
                os.close(descriptor)
        return False

    def others_drained(self) -> bool:
        """As Membership."""
        return self.members.others_drained()

    def failed(self, reason: str) -> None:
        """As Membership."""
        self._say({"failed": reason[:LONGEST_REASON]})

    async def upgrade(self) -> int:
        """As Membership: the parent does it, for all."""
        if self._upgrade is None:
            self._upgrade = asyncio.get_running_loop().create_future()
            self._say({"upgrade": True})
        return await asyncio.shield(self._upgrade)

    async def leave(self) -> None:
        """As Membership."""
        asyncio.get_running_loop().remove_reader(self._control)
        await self._tasks.close()
        await self.members.close()

    # As MembersOwner

    def links_changed(self) -> None:
        """As MembersOwner."""
        if not self._stopping:
            self._tasks.start(self._arrange())

    def link_lost(self, member: str, serial: int) -> None:
        """As MembersOwner."""
        if not self._stopping and member.isdecimal():
            self._say({"lost": member, "serial": serial})

    # Inside

    async def _arrange(self) -> None:
        """Take or leave what the leading worker has."""
        async with self._arranging:
            # Others than workers are those of another version, in an upgrade.
            linked = {int(member) for member in self.members.talking - self.members.busy if member.isdecimal()}
            number = self._place.number
            leads = all(other > number for other in linked)
            if self._stopping:
                return
            if leads:
                await self._harp.open_admin()
                self._leading = self._leading or self._tasks.start(self._facts.keep_asking())
            else:
                self._harp.close_admin()
                if self._leading is not None:
                    self._leading.cancel()
                    self._leading = None
            away = set(range(len(self._place.doors))) - linked - {number} if leads else set()
            for other in set(self._stand_ins) - away:
                self._stand_ins.pop(other).close()
            for other in away - set(self._stand_ins):
                stand_in = StandIn(self._harp, self._bind_of(self._place.doors[other]))
                await stand_in.open()
                self._stand_ins[other] = stand_in

    def _bind_of(self, door: Door) -> Bind:
        listen = self._settings.listen

        def bind(addresses: tuple[Address, ...]) -> list[socket.socket]:
            known = ((listen.http, door.http), (listen.frp, door.frp), (listen.admin, self._place.admin))
            found = next((numbers for ours, numbers in known if ours == addresses), door.https)
            return [socket.socket(fileno=os.dup(number)) for number in found]

        return bind

    def _heard(self) -> None:
        """The parent has sent a link; or it is gone, and we have no business without it."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, LONGEST, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            asyncio.get_running_loop().remove_reader(self._control)
            log.warning("the parent is gone")
            self.told.set()
            return
        message = json.loads(data)
        if "ping" in message:
            self._say({"pong": True})
        elif "succeeded" in message:
            self._harp.succeeded = True
            self.told.set()
        elif "upgraded" in message or "refused" in message:
            self._upgrade_over(message)
        for descriptor in descriptors:
            sock = socket.socket(fileno=descriptor)
            self._tasks.start(self.members.link(message["link"], sock, message["serial"]))

    def _upgrade_over(self, message: dict[str, Any]) -> None:
        upgrade, self._upgrade = self._upgrade, None
        if upgrade is None or upgrade.done():
            return
        if "refused" in message:
            upgrade.set_exception(UpgradeFailed(message["refused"]))
        else:
            upgrade.set_result(message["upgraded"])

    def _say(self, message: dict[str, object]) -> None:
        with suppress(OSError):  # the parent is gone, which is noticed where we listen to it
            self._control.send(json.dumps(message).encode())


def main(place: Post) -> int:
    """Serve in this place until asked to stop; return the exit code."""
    os.environ.pop("NOTIFY_SOCKET", None)  # what systemd is told is the parent's business
    settings = share(load(os.environ), len(place.doors))
    configure(settings.logs, settings.secrets, fields={"worker": place.number})

    async def serve() -> int:
        worker = Worker(place, settings)
        return await serve_until_told(Harp(settings, worker.bind, worker), worker.told)

    with asyncio.Runner(loop_factory=event_loop()) as runner:
        status = runner.run(serve())
        drain()
        os._exit(status)  # not by returning: that waits for every thread
