"""A new version takes the place of this one without a lost request: `harp upgrade`, or the signal USR2.

The process starts the program again, from the file it was started from itself, and leaves it its listening sockets.
What both say to each other are JSON objects in datagrams on a pair of sockets:

    {"begun": 1}                 the new one: I, or my worker 1, will look at its links with the old one now
    {"ready": true}              the new one: I serve
    {"failed": "why"}            the new one: I cannot, and end

Until it serves, the new one writes to a pipe what it has to say on stderr: the last lines tell why it has ended. A new
version that does not serve within START_LIMIT is killed, and this one goes on as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from harp.errors import HarpError, words_of
from harp.net.given import GivenSockets, inherited, sockets_of_systemd
from harp.settings import Settings

VARIABLE = "HARP_TAKES_OVER"
START_LIMIT = 60.0  # seconds until a new version serves
END_LIMIT = 5.0  # seconds for a process that has closed its socket to end
LONGEST = 1 << 14  # bytes of a datagram: a reason whose characters are all escaped
LAST_WORDS = 4  # lines
LONGEST_REASON = 1000  # characters
STOPPING = "HaRP is stopping"
CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"))

Begun = Callable[[int], Awaitable[None]]  # a worker of the new version begins

log = structlog.get_logger()


class UpgradeFailed(HarpError):
    """The version that runs goes on; the text says why."""


class Inheritance(Struct, frozen=True):
    """What a new version is started with."""

    sockets: list[tuple[str, int]]  # the address and the descriptor of each listener
    control: int  # descriptor
    errors: int  # descriptor of stderr
    links: list[list[int]]  # for each worker, descriptors of links with those of the old version


class Predecessor:
    """The version that we replace, until we serve."""

    def __init__(self, inheritance: Inheritance) -> None:
        self.sockets = inheritance.sockets
        self.links = inheritance.links
        self._control = socket.socket(fileno=inheritance.control)
        self.errors = inheritance.errors
        for number in (inheritance.control, inheritance.errors, *(fd for links in self.links for fd in links)):
            os.set_inheritable(number, False)

    def begun(self, worker: int) -> None:
        """A worker starts, or the only process: a link that nobody reads for seconds would be given up."""
        with suppress(OSError):
            self._control.send(json.dumps({"begun": worker}).encode())

    def ready(self) -> None:
        """We serve."""
        os.dup2(self.errors, sys.stderr.fileno() if sys.stderr is not None else 2)
        os.close(self.errors)
        self._say({"ready": True})

    def failed(self, reason: str) -> None:
        """We do not, and end."""
        self._say({"failed": reason[:LONGEST_REASON]})

    def _say(self, message: dict[str, object]) -> None:
        """The last thing."""
        with self._control, suppress(OSError):  # it may be gone, and we serve in its place all the same
            self._control.send(json.dumps(message).encode())


def predecessor_of(env: MutableMapping[str, str]) -> Predecessor | None:
    """Return the version that has started us in its place, if one has; the variable is removed."""
    text = env.pop(VARIABLE, "")
    return Predecessor(msgspec.json.decode(text, type=Inheritance)) if text else None


def given_at_start(settings: Settings, env: MutableMapping[str, str]) -> tuple[GivenSockets, Predecessor | None]:
    """Return the sockets that this process was started with, and the version that it takes over from, if it does.

    Raises ListenError.
    """
    predecessor = predecessor_of(env)
    if predecessor is not None:
        return GivenSockets(list(inherited(predecessor.sockets))), predecessor
    given = GivenSockets(sockets_of_systemd(env, os.getpid()))
    given.check(settings.listen, secure=(settings.certs / "cert.pem").exists())
    return given, None


def objection(env: Mapping[str, str], process: int, parent: int) -> str:
    """Return why the program cannot be replaced here, "" if it can."""
    contained = "KUBERNETES_SERVICE_HOST" in env or any(path.exists() for path in CONTAINER)
    contained = contained and "INVOCATION_ID" not in env  # a systemd may run in one
    if process == 1 or (contained and parent == 1):  # with it, the container would end
        return (
            "HaRP runs in a container, whose program is part of its image: replace the container instead "
            "(docker compose up -d, kubectl rollout restart, helm upgrade)"
        )
    if "INVOCATION_ID" in env and not env.get("NOTIFY_SOCKET"):
        return (
            "systemd would take the end of the old process for the end of the service: "
            "the unit needs Type=notify, as deploy/systemd/harp.service has it"
        )
    return ""


def command() -> list[str]:
    """Return what starts the program as it was started: the same file, which may lead to another version by now."""
    script = Path(sys.argv[0])
    if script.is_file() and os.access(script, os.X_OK):
        return list(sys.argv)
    return [sys.executable, *sys.orig_argv[1:]]


class NewVersion:
    """The process of a new version, until it serves or is gone."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        """Once it serves, it goes on only unless we are `stopping`: whoever stops HaRP means both."""
        self._stopping = stopping
        self._process: subprocess.Popen[bytes] | None = None
        self._last: deque[str] = deque(maxlen=LAST_WORDS)
        self._copying: threading.Thread

    async def serve(
        self, sockets: Sequence[tuple[str, int]], links: Sequence[Sequence[socket.socket]], begun: Begun
    ) -> int:
        """Start it, and return its process id once it serves. `links` are closed here. Raises UpgradeFailed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with ours, theirs:
                self._process = self._start(sockets, theirs, links)
                theirs.close()
                for sock in [sock for ends in links for sock in ends]:
                    sock.close()
                reason = await self._outcome(ours, begun)
        except BaseException:
            await self._end()
            raise
        if reason is None:
            if self._stopping():
                self._process.terminate()
                raise UpgradeFailed(STOPPING)
            return self._process.pid
        await self._end()
        raise UpgradeFailed(reason or self._last_words())

    def _start(
        self, sockets: Sequence[tuple[str, int]], control: socket.socket, links: Sequence[Sequence[socket.socket]]
    ) -> subprocess.Popen[bytes]:
        errors = os.dup(2)
        try:
            numbers = [[sock.fileno() for sock in ends] for ends in links]
            inheritance = Inheritance(list(sockets), control.fileno(), errors, numbers)
            process = subprocess.Popen(  # noqa: S603 - asyncio's own would kill it when we end
                command(),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, VARIABLE: msgspec.json.encode(inheritance).decode()},
                pass_fds=[
                    control.fileno(),
                    errors,
                    *(fd for _, fd in sockets),
                    *(fd for ends in numbers for fd in ends),
                ],
            )
        except OSError as error:
            raise UpgradeFailed(f"{command()[0]}: {words_of(error)}") from error
        finally:
            os.close(errors)
        self._copying = threading.Thread(target=self._copy, args=(process,), name="new version", daemon=True)
        self._copying.start()
        return process

    async def _outcome(self, control: socket.socket, begun: Begun) -> str | None:
        """Return None when it serves, else why not; "" if it has not said so."""
        try:
            async with asyncio.timeout(START_LIMIT):
                while data := await asyncio.get_running_loop().sock_recv(control, LONGEST):
                    message = json.loads(data)
                    if "begun" not in message:
                        return None if "ready" in message else str(message["failed"])
                    await begun(message["begun"])
        except TimeoutError:
            return f"the new version did not serve within {START_LIMIT:g} s"
        except OSError:
            pass
        return ""

    async def _end(self) -> None:
        """It must not go on beside us."""
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, END_LIMIT if self._last else 0.1)
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        await asyncio.to_thread(self._copying.join, END_LIMIT)

    def _copy(self, process: subprocess.Popen[bytes]) -> None:
        """In a thread: what it writes is for our own stderr, and its end for whoever asks why it has failed."""
        assert process.stderr is not None
        with process.stderr as lines, suppress(OSError):
            for line in lines:
                if text := line.decode(errors="replace").strip():
                    self._last.append(text)
                os.write(2, line)

    def _last_words(self) -> str:
        said = "; ".join(self._last)[-LONGEST_REASON:]
        status = None if self._process is None else self._process.returncode
        return f"the new version ended with {status} before it served" + (f": {said}" if said else "")
