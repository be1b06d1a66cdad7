"""All members of one HaRP, as one of them sees them: its links, and what goes over them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol

import structlog

from harp.cluster.directory import Directory
from harp.cluster.events import Events
from harp.cluster.links import AskedFor, Link, Request
from harp.errors import TunnelAway
from harp.net.deadlines import Deadlines
from harp.net.ports import PortTable
from harp.net.tasks import Tasks
from harp.net.turns import Turns
from harp.nextcloud.banning import Banning
from harp.nextcloud.instance import Instance
from harp.settings import TunnelSettings
from harp.tunnel.server.group import TunnelGroup
from harp.wire.member import Ask, Attached, Drained, Greeted, Operated, Renewed, Talk, Told, ToPort, WorkFor
from harp.wire.windows import Budget

STRANGERS = "*"  # no Nextcloud has this name
PROBES = 2.0  # seconds between two looks whether the others answer
PROBE_LIMIT = 2.0  # seconds for an answer
SHOWN = 16  # names of tunnels in a line of the log
GREETING = 3.0  # seconds that a new member waits for what others know

log = structlog.get_logger()

Answer = Callable[[str], Awaitable[bytes]]


class MembersOwner(Protocol):
    """Whose links they are."""

    def links_changed(self) -> None:
        """A link has come or gone."""

    def link_lost(self, member: str, serial: int) -> None:
        """This one has gone, and nobody has closed it here."""

    def renewed(self) -> None:
        """Another member has made certificates in the directory that all share."""

    def operated(self, change: Operated) -> None:
        """An operator has changed something for all members."""


class Members:
    """Links with other members. What each Nextcloud shares over them is attached; `answers` is what others may ask."""

    def __init__(
        self,
        name: str,
        owner: MembersOwner,
        deadlines: Deadlines,
        turns: Turns,
        tunnel: TunnelSettings,
        *,
        boot: str = "",
        patience: float | None = None,
    ) -> None:
        """With `patience` (seconds), a member that does not answer for so long gets no more requests, and is not linked
        any more when that time has passed once again: nobody else ends it. `boot` is as in Greeting."""
        self.name = name
        self.boot = boot
        self.fresh = True
        self.deadlines = deadlines
        self.turns = turns
        self.budget = Budget(tunnel.memory)
        self.window = tunnel.window
        self.links: dict[str, Link] = {}  # by the member's name
        self.answers: Mapping[str, Answer] = {}
        self.talking: set[str] = set()  # those that have said who they are
        self.busy: set[str] = set()  # of them, those that did not answer the last time
        self._owner = owner
        self._patience = patience
        self._directories: dict[str, Directory] = {}  # by instance
        self._events: dict[str, Events] = {}
        self._greeted: set[str] = set()
        self._met: dict[str, str] = {}  # the last process of each member that was linked
        self._drained: set[str] = set()
        self._told_drained = False
        self._news = asyncio.Event()
        self._tasks = Tasks()
        self._closed = False

    def attach(self, name: str, ports: PortTable, group: TunnelGroup, instance: Instance) -> None:
        """Share a Nextcloud's tunnels, bans and records with the others, from now on."""
        directory = self._directories[name] = Directory(self.name, name, ports, group, self.links.values)
        self._events[name] = Events(name, instance.banning, instance, self.tell)
        for link in self.links.values():
            directory.greet(link)
            link.tell(Attached(instance=name))

    def attach_strangers(self, banning: Banning) -> None:
        """Share bans of those who have come with keys of no Nextcloud."""
        self._events[STRANGERS] = Events(STRANGERS, banning, None, self.tell)

    async def detach(self, name: str) -> None:
        """This Nextcloud is served here no more."""
        self._events.pop(name, None)
        directory = self._directories.pop(name, None)
        if directory is not None:
            await directory.close()

    async def link(self, member: str, sock: socket.socket, serial: int) -> None:
        """Talk with a member over a connected socket; an older link with it ends."""
        link = self._new_link(member, serial)
        await asyncio.get_running_loop().create_connection(lambda: link.mux, sock=sock)
        self._begin(link)

    def adopt(self, member: str, boot: str, transport: asyncio.Transport, rest: bytes = b"") -> None:
        """Talk with a member over a connection on which it was greeted; an older link with it ends.

        `rest` was received already.
        """
        link = self._new_link(member, 0, boot)
        transport.set_protocol(link.mux)
        link.mux.connection_made(transport)
        self._begin(link)
        if rest:
            link.mux.data_received(rest)

    def _new_link(self, member: str, serial: int, boot: str = "") -> Link:
        older = self.links.pop(member, None)
        if older is not None:
            self._forget(older)
            older.abort("there is a new link")
        link = self.links[member] = Link(member, self, serial, first=self.name < member, boot=boot)
        return link

    def _begin(self, link: Link) -> None:
        if self.links.get(link.member) is not link:  # there is a newer one by now
            link.abort("there is a new link")
            return
        with suppress(TunnelAway):  # it is lost already, and that was reported elsewhere
            link.begin()
        self.fresh = False  # one tells what there is: told by two, strikes would count twice

    async def greeted(self) -> None:
        """Wait, not for long, until everybody who is linked now has told what there is to know."""
        waiting = set(self.links)  # those that come later start as we do, and know nothing either
        try:
            async with asyncio.timeout(GREETING):
                while waiting & set(self.links) - self._greeted:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            log.warning("members are slow to answer", members=sorted(waiting - self._greeted))

    async def watch(self) -> None:
        """See again and again whether the others answer, until cancelled."""
        limit = self._patience or PROBE_LIMIT
        while True:
            await asyncio.sleep(PROBES)
            links = [link for name, link in self.links.items() if name in self.talking]
            answers = await asyncio.gather(*(link.mux.probe(limit) for link in links))
            silent = [link for link, alive in zip(links, answers, strict=True) if not alive]
            busy = {link.member for link in silent if self.links.get(link.member) is link} & self.talking
            if busy != self.busy:
                for name in busy - self.busy:
                    log.warning("member busy", member=name, seconds=limit)
                self.busy = busy
                self._owner.links_changed()
            for name in busy if self._patience is not None else ():
                self._wait_for(self.links[name], limit)

    def _wait_for(self, link: Link, seconds: float) -> None:
        """Have nobody else wait for a member that does not answer."""
        if not link.stuck:
            link.suspend(f"member {link.member} has not answered for {seconds:g} s")
            for directory in self._directories.values():
                directory.stuck(link)
            self._tasks.start(self._give_up(link, seconds))

    async def _give_up(self, link: Link, seconds: float) -> None:
        if await link.mux.probe(seconds):
            link.resume()
        else:
            link.abort(f"no answer for {2 * seconds:g} s")

    def tell(self, message: Told) -> None:
        """Tell everybody."""
        for link in list(self.links.values()):
            link.tell(message)

    def others_drained(self) -> bool:
        """We have drained; have all others? Until then they may need the tunnels that are held here."""
        if not self._told_drained:
            self._told_drained = True
            self.tell(Drained())
        return self.talking <= self._drained

    async def close(self) -> None:
        """End all links."""
        self._closed = True
        for link in list(self.links.values()):
            link.close("this member stops")
        for directory in self._directories.values():
            await directory.close()
        await self._tasks.close()

    # As LinkHost

    def began(self, link: Link, talk: Talk) -> None:
        """As LinkHost."""
        link.boot = talk.boot
        for directory in self._directories.values():
            directory.greet(link)
        if talk.fresh or (
            talk.boot and self._met.get(link.member) == talk.boot
        ):  # cut off meanwhile: strikes were missed
            for events in self._events.values():
                events.greet(link)
        self._met[link.member] = talk.boot
        link.tell(Greeted())
        self.talking.add(link.member)
        log.info("member linked", member=link.member)
        self._owner.links_changed()

    def heard(self, link: Link, message: Told) -> None:
        """As LinkHost. What is about a Nextcloud that is not known here is left alone."""
        match message:
            case Greeted():
                self._greeted.add(link.member)
                self._news.set()
            case Drained():
                self._drained.add(link.member)
            case Renewed():
                self._owner.renewed()
            case Operated():
                self._owner.operated(message)
            case Attached(instance=name) if name in self._directories:
                self._directories[name].greet(link)
                self._events[name].greet(link)
            case _:
                directory, events = self._directories.get(message.instance), self._events.get(message.instance)
                known = directory is not None and directory.heard(link, message)
                if not known and events is not None:
                    events.heard(message)

    def asked(self, link: Link, request: Request, stream: AskedFor) -> None:
        """As LinkHost."""
        directory = self._directories.get(request.instance)
        match request:
            case Ask(what, about):
                self._tasks.start(self._answer(what, about, stream))
            case _ if directory is None:
                stream.refuse("this Nextcloud is not known here")
            case ToPort(port):
                directory.serve_port(port, stream)
            case WorkFor(run_id, version):
                directory.serve_work(run_id, version, stream)

    def lost(self, link: Link) -> None:
        """As LinkHost."""
        if self.links.get(link.member) is not link:
            return
        del self.links[link.member]
        tunnels = sorted(name for directory in self._directories.values() for name in directory.held_by(link))
        tell = log.warning if link.member in self.talking else log.info  # one that hangs is known to hang
        drained = link.member in self._drained
        self._forget(link)
        if not self._closed:
            shown = tunnels[:SHOWN]
            if drained:
                log.info("member left", member=link.member, tunnels=shown, all=len(tunnels))
            else:
                tell("member lost", member=link.member, reason=link.mux.reason, tunnels=shown, all=len(tunnels))
            self._owner.links_changed()
            self._owner.link_lost(link.member, link.serial)

    def _forget(self, link: Link) -> None:
        self._greeted.discard(link.member)
        self.talking.discard(link.member)
        self._drained.discard(link.member)
        self.busy.discard(link.member)
        self._news.set()
        for directory in self._directories.values():
            directory.lost(link)

    async def _answer(self, what: str, about: str, stream: AskedFor) -> None:
        answer = self.answers.get(what)
        if answer is None:
            stream.refuse(f"{what} is not known here")
            return
        try:
            body = await answer(about)
        except BaseException:
            stream.refuse("internal error; see the log")
            raise
        if not stream.transport.is_closing():
            transport = stream.accept(asyncio.Protocol())
            transport.write(body)
            transport.write_eof()
