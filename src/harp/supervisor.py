"""The parent of several workers (HP_WORKERS): binds the sockets, introduces workers to each other, restarts dead ones.

It serves nobody itself. A worker is `harp.worker`, a whole gateway in a process of its own, forked by `harp.forker`;
each two of them have a connected pair of sockets from here, and everything else they settle between them. What the
parent and a worker tell each other are JSON objects on a pair of sockets, one in each datagram:

    {"ready": true}               worker: I serve
    {"lost": "2", "serial": 7}    worker: my link with worker 2, the seventh that was made, is gone
    {"link": "2", "serial": 8}    parent: here is a new one, as a descriptor
    {"ping": true}                parent: do you still work?
    {"pong": true}                worker: I do
    {"failed": "why"}             worker: I cannot start
    {"upgrade": true}             worker: an operator wants a new version to take over (see `harp.upgrade`)
    {"upgraded": 4711}            parent: it has, as this process; or {"refused": "why"}
    {"succeeded": true}           parent: another HaRP serves in our place: drain

A worker without a parent stops, and one that does not answer is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import structlog

from harp.errors import HarpError, words_of
from harp.forker import Door, Forker, Post
from harp.logs import configure, drain
from harp.net.given import GivenSockets
from harp.net.listen import ListenError
from harp.settings import Address, Settings
from harp.systemd import notify
from harp.upgrade import STOPPING, NewVersion, Predecessor, UpgradeFailed, given_at_start, objection

AUTO_MOST = 16  # workers, however many processors there are
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
LONGEST = 1 << 14  # bytes of a datagram: a reason whose characters are all escaped
STEADY = 10.0  # seconds that a worker has to live for its end to be an accident
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds until one that ends at once is started again
PING = 5.0  # seconds
MOST_MISSED = 6  # pings without an answer until a worker is killed: its event loop is stuck, or it was stopped
RELINK = 1.0  # seconds until two workers that have lost their link get another
LAST_WAIT = 2.0  # seconds for the end of those that were killed, or have closed their socket
STOP_LIMIT = 15.0  # seconds beyond the drain until a worker that does not stop is killed
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)

log = structlog.get_logger()


class WorkerProcess:
    """One worker, as the parent knows it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process = 0  # its id; 0 = it does not run
        self.ended: asyncio.Future[int | str]  # how
        self.control: socket.socket | None = None
        self.ready = asyncio.Event()
        self.missed = 0  # pings
        self.failures = 0  # ends in a row soon after a start


def workers_of(settings: Settings) -> int:
    """Return how many workers there shall be: with "auto" as many as this process may use processors."""
    if settings.workers:
        return settings.workers
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, _processors_of_group(), AUTO_MOST))


def _processors_of_group() -> int:
    """Return what the container's limit of processor time comes to, rounded up; many without one."""
    try:
        quota, period = CPU_LIMIT.read_text().split()
        return AUTO_MOST if quota == "max" else max(1, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        return AUTO_MOST


def supervise(settings: Settings, count: int) -> int:
    """Run workers until asked to stop; return the exit code. Signals mean what they mean without workers."""
    configure(settings.logs, settings.secrets, fields={"worker": "parent"})
    with asyncio.Runner() as runner:
        status = runner.run(Supervisor(settings, count).run())
    drain()
    return status


class Supervisor:
    """Keeps a number of workers running."""

    def __init__(self, settings: Settings, workers: int) -> None:
        self._settings = settings
        self._workers = [WorkerProcess(number) for number in range(workers)]
        self._sockets: list[socket.socket] = []
        self._named: list[tuple[str, int]] = []  # the same: address and descriptor
        self._predecessor: Predecessor | None = None
        self._took_over = False
        self._upgrading = False
        self._succeeded = False  # another HaRP serves in our place
        self._doors: list[Door] = []
        self._admin: list[int] = []
        self._serials: dict[frozenset[int], int] = {}  # of the last link of two workers
        self._serial = count(1)
        self._told = asyncio.Event()
        self._forker: Forker
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Start, keep and stop the workers; return the exit code."""
        loop = asyncio.get_running_loop()
        try:
            given, self._predecessor = given_at_start(self._settings, os.environ)
            self._bind(given)
        except HarpError as error:
            fix = {"fix": "`harp doctor` names the variable and what to do"} if isinstance(error, ListenError) else {}
            log.error("cannot start", reason=str(error), **fix)
            return 1
        self._forker = Forker([sock.fileno() for sock in self._sockets], self._ended)
        if self._predecessor is not None:
            self._forker.errors = self._predecessor.errors
        for number in STOPS:
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._signal, signal.SIGHUP)
        loop.add_signal_handler(signal.SIGUSR2, lambda: self._spawn(self._upgrade_for(None)))
        first, *others = self._workers
        status = await self._first(first)
        if status is None:
            for worker in others:
                self._spawn(self._keep(worker))
            self._spawn(self._watch())
            self._spawn(self._announce())
            await self._told.wait()
            status = 0
        await self._end()
        return status

    async def _first(self, worker: WorkerProcess) -> int | None:
        """Start one worker alone: it makes the certificates, and finds out whether anything can be served at all.

        None when it serves, else the exit code.
        """
        try:
            await self._start(worker)
        except OSError as error:
            log.error("cannot start", reason=str(error))
            return 1
        ended = worker.ended
        waits = [asyncio.ensure_future(event.wait()) for event in (worker.ready, self._told)]
        every: list[asyncio.Future[Any]] = [ended, *waits]
        await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if ended.done():
            status = ended.result()
            return status if isinstance(status, int) and status > 0 else 1
        if self._told.is_set():
            return 0
        self._spawn(self._keep(worker))
        return None

    async def _announce(self) -> None:
        """Tell whoever waits for it that we serve: with all workers where another version has done so."""
        if self._predecessor is not None:
            for worker in self._workers:
                await worker.ready.wait()
            self._forker.errors = None
            self._predecessor.ready()
            self._predecessor, self._took_over = None, True
        notify(f"READY=1\nMAINPID={os.getpid()}")

    # Sockets

    def _bind(self, given: GivenSockets) -> None:
        listen = self._settings.listen
        secure = (self._settings.certs / "cert.pem").exists()
        wanted = (listen.http, listen.https if secure else (), listen.frp)
        groups = [self._group(given, addresses, len(self._workers)) for addresses in wanted]
        for number in range(len(self._workers)):
            http, https, frp = ([sockets[number].fileno() for sockets in group] for group in groups)
            self._doors.append(Door(http, https, frp))
        self._admin = [sock.fileno() for (sock,) in self._group(given, listen.admin, 1)]
        given.close()

    def _group(self, given: GivenSockets, addresses: tuple[Address, ...], count: int) -> list[list[socket.socket]]:
        groups = given.groups(addresses, count)
        for address, group in zip(addresses, groups, strict=True):
            self._sockets += group
            self._named += [(str(address), sock.fileno()) for sock in group]
        return groups

    # Workers

    async def _keep(self, worker: WorkerProcess) -> None:
        """Have a worker run until we stop."""
        while not self._told.is_set():
            began = time.monotonic()
            try:
                if not worker.process:
                    await self._start(worker)
                status = await worker.ended
            except (OSError, ValueError) as error:  # of the system, or we stop and have closed the sockets
                status = f"not started: {error}"
            self._gone(worker)
            if self._told.is_set():
                return
            worker.failures = 0 if time.monotonic() - began > STEADY else worker.failures + 1
            delay = 0.0
            if worker.failures > 1:
                delay = min(FIRST_DELAY * 2 ** (worker.failures - 2), LONGEST_DELAY)
            log.error("worker ended", number=worker.number, status=status, starts_again_in=delay)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._told.wait()

    async def _start(self, worker: WorkerProcess) -> None:
        """Start a worker, linked with all that run. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        links: dict[str, tuple[int, int]] = {}
        ends: list[socket.socket] = []
        for other in self._workers:
            if other.control is not None and other is not worker:
                here, there, serial = self._link(worker, other)
                ends.append(here)
                links[str(other.number)] = (here.fileno(), serial)
                _introduce(other, str(worker.number), there, serial)
        if self._predecessor is not None and worker.number < len(self._predecessor.links):
            self._predecessor.begun(worker.number)
            for number, descriptor in enumerate(self._predecessor.links[worker.number]):
                ends.append(socket.socket(fileno=descriptor))
                links[f"!{number}"] = (descriptor, 0)
            self._predecessor.links[worker.number] = []
        worker.ready.clear()
        worker.missed = 0
        worker.control = ours
        asyncio.get_running_loop().add_reader(ours, self._heard, worker, ours)
        worker.ended = asyncio.get_running_loop().create_future()
        try:
            worker.process = await self._forker.fork(Post(worker.number, self._doors, self._admin, links), theirs, ends)
        finally:
            for sock in (theirs, *ends):
                sock.close()
        if self._told.is_set():
            self._forker.signal(worker.process, signal.SIGTERM)

    def _ended(self, process: int, status: int) -> None:
        """A worker is no more."""
        for worker in self._workers:
            if worker.process == process and not worker.ended.done():
                worker.ended.set_result(status)

    def _heard(self, worker: WorkerProcess, control: socket.socket) -> None:
        try:
            data = control.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            loop = asyncio.get_running_loop()
            loop.remove_reader(control)
            loop.call_later(LAST_WAIT, _end_unknown, worker.ended)  # unless the forker says how, as it does if it can
            return
        message = json.loads(data)
        worker.missed = 0
        if "ready" in message:
            worker.ready.set()
            log.info("worker serves", number=worker.number)
        elif "lost" in message:
            self._spawn(self._relink(worker, self._workers[int(message["lost"])], message["serial"]))
        elif "failed" in message and self._predecessor is not None:
            self._predecessor.failed(message["failed"])
        elif "upgrade" in message:
            self._spawn(self._upgrade_for(worker))

    async def _watch(self) -> None:
        """Kill workers that hang. Time alone is no proof: the whole host may have been suspended."""
        while True:
            await asyncio.sleep(PING)
            for worker in self._workers:
                if not worker.process or worker.control is None or not worker.ready.is_set():
                    continue
                worker.missed += 1
                if worker.missed > MOST_MISSED:
                    log.error("worker hangs", number=worker.number, seconds=MOST_MISSED * PING)
                    self._forker.signal(worker.process, signal.SIGKILL)
                with suppress(OSError):
                    worker.control.send(b'{"ping": true}')

    async def _relink(self, one: WorkerProcess, other: WorkerProcess, lost: int) -> None:
        """Two workers have lost a link. They get another, unless they have, or one is dead and starts with one."""
        await asyncio.sleep(RELINK)
        if self._serials.get(frozenset((one.number, other.number))) == lost and one.control and other.control:
            here, there, serial = self._link(one, other)
            _introduce(one, str(other.number), here, serial)
            _introduce(other, str(one.number), there, serial)

    def _link(self, one: WorkerProcess, other: WorkerProcess) -> tuple[socket.socket, socket.socket, int]:
        """Both ends of a new link of two workers, and its number."""
        serial = self._serials[frozenset((one.number, other.number))] = next(self._serial)
        return (*socket.socketpair(), serial)

    def _gone(self, worker: WorkerProcess) -> None:
        worker.ready.clear()
        worker.process = 0
        if worker.control is not None:
            asyncio.get_running_loop().remove_reader(worker.control)
            worker.control.close()
            worker.control = None

    # Another version

    async def _upgrade_for(self, worker: WorkerProcess | None) -> None:
        """Have a new version take over, and tell the worker that has asked for it."""
        try:
            answer: dict[str, object] = {"upgraded": await self._upgrade()}
        except (HarpError, OSError) as error:  # of the system when there are too many descriptors, for one
            reason = words_of(error) if isinstance(error, OSError) else str(error)
            log.error("upgrade failed, this version goes on", reason=reason)
            answer = {"refused": reason}
        if worker is not None:
            _say(worker, answer)
        if "upgraded" in answer:
            log.warning("another process serves, this one finishes its requests", process=answer["upgraded"])
            notify(f"MAINPID={answer['upgraded']}")
            self._succeeded = True
            for one in self._workers:
                _say(one, {"succeeded": True})
            self._close_sockets()
            self._told.set()

    async def _upgrade(self) -> int:
        """Start it; its process id once it serves. Raises UpgradeFailed."""
        parent = 0 if self._took_over else os.getppid()  # who was started by one is nobody's main process
        reason = "an upgrade is under way" if self._upgrading else objection(os.environ, os.getpid(), parent)
        if reason or self._told.is_set():
            raise UpgradeFailed(reason or STOPPING)
        self._upgrading = True
        try:
            linked = [worker for worker in self._workers if worker.ready.is_set()]  # others would be waited for
            pairs = [[socket.socketpair() for _ in linked] for _ in self._workers]

            async def begun(number: int) -> None:
                for worker, (here, _) in zip(linked, pairs[number], strict=True):
                    if worker.control is not None:
                        _introduce(worker, f"~{number}", here, 0)

            try:
                links = [[there for _, there in ends] for ends in pairs]
                return await NewVersion(self._told.is_set).serve(self._named, links, begun)
            finally:
                for here, _ in [pair for ends in pairs for pair in ends]:
                    here.close()  # those that were sent are elsewhere now
        finally:
            self._upgrading = False

    # Signals and the end

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if not worker.process or worker.ended.done():
                continue
            if number == signal.SIGHUP and not worker.ready.is_set():
                continue  # it would end by it, and reads everything as it is now
            self._forker.signal(worker.process, number)

    def _stop(self) -> None:
        """Have all workers drain; the second time, stop at once."""
        if not self._told.is_set():
            notify("STOPPING=1")
        self._told.set()
        self._close_sockets()
        self._signal(signal.SIGTERM)

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        self._forker.leave()

    async def _end(self) -> None:
        self._stop_unless_told()
        timeouts = self._settings.timeouts
        running = [worker.ended for worker in self._workers if worker.process]
        if running:
            limit = (timeouts.upgrade if self._succeeded else timeouts.drain) + STOP_LIMIT
            _, late = await asyncio.wait(running, timeout=limit)
            if late:
                log.error("workers did not stop")
                self._signal(signal.SIGKILL)
                await asyncio.wait(late, timeout=LAST_WAIT)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._forker.close()

    def _stop_unless_told(self) -> None:
        if not self._told.is_set():
            self._stop()

    def _spawn(self, work: asyncio._CoroutineLike[None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _end_unknown(ended: asyncio.Future[int | str]) -> None:
    if not ended.done():
        ended.set_result("unknown")


def _introduce(worker: WorkerProcess, other: str, end: socket.socket, serial: int) -> None:
    """Send a worker its end of a link. When it cannot be sent, the other one finds its own end closed, and says so."""
    assert worker.control is not None
    with end, suppress(OSError):
        message = json.dumps({"link": other, "serial": serial}).encode()
        socket.send_fds(worker.control, [message], [end.fileno()])


def _say(worker: WorkerProcess, message: dict[str, object]) -> None:
    if worker.control is not None:
        with suppress(OSError):
            worker.control.send(json.dumps(message).encode())
