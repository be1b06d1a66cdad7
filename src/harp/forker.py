"""The process from which workers are forked: it has everything loaded, so a worker is there at once and shares memory.

It has one thread and no event loop, so forking is safe, and does nothing but fork, pass on signals, and tell which
worker has ended. With the parent it speaks JSON objects on a pair of sockets, one in each datagram:

    {"fork": 3, "post": {…}}          parent: have a worker; its descriptors come along
    {"forked": 3, "process": 4711}    here it is
    {"refused": 3, "reason": "…"}     the system has no room for it
    {"signal": 15, "process": 4711}   parent: send it this
    {"ended": 4711, "status": -9}     it is no more
    {"leave": true}                   parent: nothing more will be forked, close the listening sockets

Without a parent it ends, as workers do. Without it, the parent starts another one when it needs a worker.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from harp.errors import words_of

LONGEST = 1 << 16  # bytes of a datagram
MOST_DESCRIPTORS = 160  # of one order: the control socket, links with each other worker and each of an old version
PATIENCE = 60.0  # seconds until a worker is forked; the first one has to wait until everything is loaded
QUIETED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGHUP)  # for the parent and workers

log = structlog.get_logger()


class Door(Struct, frozen=True):
    """The listening sockets of one worker, as descriptors that every worker has: another one may stand in for it."""

    http: list[int]
    https: list[int]
    frp: list[int]


class Post(Struct, frozen=True):
    """What a worker is told at its start."""

    number: int
    doors: list[Door]  # of every worker, by number
    admin: list[int]  # descriptors, for the worker that leads
    links: dict[str, tuple[int, int]]  # worker -> descriptor and serial number; "!…" are those of the version before
    control: int = -1  # descriptor


class Forker:
    """That process, as the parent knows it."""

    def __init__(self, inherited: Sequence[int], ended: Callable[[int, int], None]) -> None:
        """Workers have the `inherited` descriptors. `ended(process, status)` is called for each that is no more."""
        self.errors: int | None = None  # descriptor of the stderr of workers; None = ours
        self._inherited = inherited
        self._ended = ended
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._orders: dict[int, asyncio.Future[int]] = {}
        self._forked: set[int] = set()  # processes that this one, not one before it, has forked and not buried
        self._number = 0

    async def fork(self, post: Post, control: socket.socket, links: Sequence[socket.socket]) -> int:
        """Start a worker with its ends of sockets, the links in the order of those in `post`; its process id.

        Raises OSError.
        """
        async with self._starting:
            if self._control is None:
                await self._start()
        assert self._control is not None
        self._number = number = self._number + 1
        order = self._orders[number] = asyncio.get_running_loop().create_future()
        text = json.dumps({"fork": number, "post": msgspec.to_builtins(post)})
        try:
            socket.send_fds(self._control, [text.encode()], [sock.fileno() for sock in (control, *links)])
            async with asyncio.timeout(PATIENCE):
                process: int = await order
                return process
        except TimeoutError:
            raise OSError(f"no worker was forked within {PATIENCE:g} s") from None
        finally:
            self._orders.pop(number, None)

    def signal(self, process: int, number: signal.Signals) -> None:
        """Send a worker a signal; nothing happens when it is no more."""
        if process in self._forked:  # it knows for sure whether that process is still the worker
            self._say({"signal": int(number), "process": process})
        else:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def leave(self) -> None:
        """Have it close the sockets that it has kept for more workers."""
        self._say({"leave": True})

    async def close(self) -> None:
        """End it."""
        self._lost()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        inherited = ",".join(map(str, self._inherited))
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "harp.forker", str(theirs.fileno()), inherited),
                pass_fds=[theirs.fileno(), *self._inherited],
                stderr=self.errors,
                start_new_session=True,  # a Ctrl-C at the terminal is the parent's alone
            )
        self._control = ours
        asyncio.get_running_loop().add_reader(ours, self._heard, ours)

    def _heard(self, control: socket.socket) -> None:
        try:
            data = control.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            log.error("the process that forks workers has ended")
            self._lost()
            return
        message = json.loads(data)
        if "ended" in message:
            self._forked.discard(message["ended"])
            self._ended(message["ended"], message["status"])
            return
        if "refused" in message:
            order = self._orders.get(message["refused"])
            if order is not None and not order.done():
                order.set_exception(OSError(f"the system refuses a process: {message['reason']}"))
            return
        self._forked.add(message["process"])
        order = self._orders.get(message["forked"])
        if order is not None and not order.done():
            order.set_result(message["process"])

    def _lost(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._control = None
        self._forked.clear()
        for order in self._orders.values():
            if not order.done():
                order.set_exception(OSError("the process that forks workers has ended"))

    def _say(self, message: dict[str, object]) -> None:
        if self._control is not None:
            with suppress(OSError):  # it has ended, which is noticed where we listen to it
                self._control.send(json.dumps(message).encode())


class ForkingProcess:
    """What runs in it."""

    def __init__(self, control: socket.socket, inherited: Sequence[int], serve: Callable[[Post], object]) -> None:
        self._control = control
        self._inherited = inherited
        self._serve = serve
        self._workers: set[int] = set()
        self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)  # rings when a worker has ended

    def run(self) -> None:
        """Fork what is ordered until the parent is gone."""
        for number in QUIETED:  # some managers of services send them to every process
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._bell[1], warn_on_full_buffer=False)
        poll = select.poll()
        for descriptor in (self._control.fileno(), self._bell[0]):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._bell[0] in ready:
                with suppress(BlockingIOError):
                    os.read(self._bell[0], 4096)
                self._bury()
            if self._control.fileno() in ready and not self._obey():
                return

    def _obey(self) -> bool:
        """Do as the parent says; False when it is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, LONGEST, MOST_DESCRIPTORS)
        except OSError:
            return False
        if not data:
            return False
        message = json.loads(data)
        if "fork" in message:
            self._fork(message["fork"], message["post"], descriptors)
        elif "leave" in message:
            for descriptor in self._inherited:
                os.close(descriptor)
            self._inherited = ()
        elif message["process"] in self._workers:
            os.kill(message["process"], message["signal"])
        return True

    def _fork(self, order: int, post: Any, descriptors: list[int]) -> None:
        try:
            process = os.fork()
        except OSError as error:  # of the system's limits, which may have room again later
            for descriptor in descriptors:
                os.close(descriptor)
            self._say({"refused": order, "reason": words_of(error)})
            return
        if process:
            for descriptor in descriptors:
                os.close(descriptor)
            self._workers.add(process)
            self._say({"forked": order, "process": process})
            return
        try:
            self._become_worker(msgspec.convert(post, Post), descriptors)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)  # it ends by itself

    def _become_worker(self, post: Post, descriptors: list[int]) -> None:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (*QUIETED, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        self._control.close()
        for descriptor in self._bell:
            os.close(descriptor)
        control, *ends = descriptors
        links = {name: (end, serial) for (name, (_, serial)), end in zip(post.links.items(), ends, strict=True)}
        self._serve(replace(post, control=control, links=links))

    def _bury(self) -> None:
        while self._workers:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            self._workers.discard(process)
            self._say({"ended": process, "status": os.waitstatus_to_exitcode(status)})

    def _say(self, message: dict[str, object]) -> None:
        with suppress(OSError):
            self._control.send(json.dumps(message).encode())


def main(control: str, inherited: str) -> None:
    """Load everything, and fork workers."""
    from harp.worker import main as serve  # noqa: PLC0415 - the parent does without

    gc.collect()
    gc.freeze()  # what is loaded stays, and stays shared: no collection looks through it
    ForkingProcess(socket.socket(fileno=int(control)), [int(one) for one in inherited.split(",")], serve).run()


if __name__ == "__main__":
    from harp import forker  # noqa: PLW0406 - whose types are those that workers know

    forker.main(*sys.argv[1:])
