"""Who the replicas are and where they are reached, as the store knows it: a full copy in every one of them.

Nothing that serves a request waits for the store. While it is away, the last copy holds; links are not touched. In it,
below the prefix, are

    members          set of names
    member:NAME      Peer as JSON, with a lease
    ca               fingerprint of the CA that all have in common
    ca-maker         boot id of who is making it, with a lease
    changes          channel: ComingOrGoing as JSON, when somebody comes or goes
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from ssl import PEM_cert_to_DER_cert
from typing import Protocol

import msgspec
import structlog
from msgspec import Struct

from harp.cluster.store import Command, Published, RosterStore, StoreError
from harp.errors import HarpError, PeerError
from harp.logs import RareWarnings
from harp.settings import ClusterSettings
from harp.wire.decoding import decoded

LEASE = 8.0  # seconds that an entry outlives the last sign of its owner
RENEWAL = 2.0  # seconds
AGAIN = 1.0  # seconds until a store that has failed is asked again
KEPT = 6.0  # seconds that somebody is known who is not in the store: it may have lost its data
LOOK = 0.3  # seconds between two looks at the start
KNOCK = 1.0  # seconds for whoever has our name and address to answer there
MAKING = 60.0  # seconds that making a CA may take
SHOWING = 5.0  # seconds until a CA that somebody has made is seen in a directory that all share
STORE_PATIENCE = 30.0  # seconds that a replica without a CA waits for the store
MOST = 256  # members that are looked at

log = structlog.get_logger()


class Peer(Struct, frozen=True):
    """Another replica."""

    name: str
    boot: str  # of its process: another one with its name is another
    host: str
    port: int


class ComingOrGoing(Struct, frozen=True):
    """Somebody has come or gone."""

    name: str
    boot: str
    gone: bool


class NotAdmitted(HarpError):
    """This replica cannot be one of those in the store; the text says what to do."""


class RosterOwner(Protocol):
    """Whose roster it is."""

    def peers_changed(self) -> None:
        """Somebody has come, gone, or is reached elsewhere."""


class Roster:
    """Our entry in the store, and those of others."""

    def __init__(self, settings: ClusterSettings, owner: RosterOwner, warnings: RareWarnings) -> None:
        self.name = settings.name
        self.boot = token_hex(8)
        self.peers: Mapping[str, Peer] = {}
        self.problem = ""  # "" = the store answers, and we are in it
        self._settings = settings
        self._owner = owner
        self._warnings = warnings
        self._store = RosterStore(settings.store)
        self._host = ""  # where others reach us, "" = not known yet
        self._port = settings.port
        self._ca = ""
        self._makes_ca = False
        self._announced = False
        self._seen: dict[str, float] = {}  # when a peer was in the store last

    # The start

    async def claim_ca(self, directory: Path) -> None:
        """See that certificates may be made in `directory`: two replicas that are fresh must not make a CA each.

        Returns when there is a CA, or we are the one that makes it. Raises NotAdmitted.
        """
        began = asyncio.get_running_loop().time()
        while True:
            ours = await asyncio.to_thread(fingerprint, directory / "ca.crt")
            if ours:
                return
            try:
                claimed = await self._claim_ca()
            except StoreError as error:
                reason = f"the store {self._store} does not answer ({error}), so others may have one"
                patience = STORE_PATIENCE
            else:
                if self._makes_ca:
                    return
                reason = "the other replicas have one" if claimed else "another replica has not finished making one"
                patience = SHOWING if claimed else MAKING
            if asyncio.get_running_loop().time() - began > patience:
                fix = "mount the directory that all share, or copy that of another replica"
                raise NotAdmitted(f"{directory} contains no CA, and {reason}: {fix}")
            await asyncio.sleep(LOOK)

    async def join(self, directory: Path) -> None:
        """Take our place, and see who else is there; a store that is away is not waited for. Raises NotAdmitted."""
        self._ca = await asyncio.to_thread(fingerprint, directory / "ca.crt")
        try:
            await self._find_host()
            _, claimed = await self._store.ask(*self._claiming())
            if trouble := self._differs(claimed):
                raise NotAdmitted(trouble)
            if self._makes_ca:
                await self._store.ask(("DEL", self._key("ca-maker")))
                self._makes_ca = False
            await self._take_name()
            await self._synchronise()
        except StoreError as error:
            await self._away(error)

    async def run(self) -> None:
        """Keep our entry alive and the copy true, until cancelled."""
        while True:
            try:
                await self._find_host()
                async with self._store.following(self._key("changes")) as changes:
                    while True:
                        await self._synchronise()
                        await self._listen(changes)
            except StoreError as error:
                await self._away(error)
            await asyncio.sleep(AGAIN)

    async def close(self) -> None:
        """Leave."""
        with suppress(StoreError):
            (entry,) = await self._store.ask(("GET", self._key("member", self.name)))
            if (holder := _peer(entry)) is not None and holder.boot == self.boot:
                await self._store.ask(
                    ("DEL", self._key("member", self.name)),
                    ("SREM", self._key("members"), self.name),
                    self._news(gone=True),
                )
        await self._store.close()

    # Inside

    def _key(self, *parts: str) -> str:
        return self._settings.prefix + ":".join(parts)

    def _news(self, *, gone: bool) -> Command:
        return "PUBLISH", self._key("changes"), msgspec.json.encode(ComingOrGoing(self.name, self.boot, gone))

    def _renewal(self, *options: str) -> Command:
        entry = msgspec.json.encode(Peer(self.name, self.boot, self._host, self._port))
        return "SET", self._key("member", self.name), entry, "PX", int(LEASE * 1000), *options

    async def _find_host(self) -> None:
        """Where we are may change with the network."""
        settings = self._settings
        if settings.address is not None:
            self._host, self._port = settings.address.host, settings.address.port
        else:
            try:
                self._host = settings.host or await self._store.own_host()
            except StoreError:
                if not self._host:
                    raise

    async def _claim_ca(self) -> bool:
        """Return whether the replicas have a CA. If not, try to be the one that makes it."""
        (claimed,) = await self._store.ask(("GET", self._key("ca")))
        if not claimed:
            claim = ("SET", self._key("ca-maker"), self.boot, "PX", int(MAKING * 1000), "NX")
            (self._makes_ca,) = map(bool, await self._store.ask(claim))
        return bool(claimed)

    def _claiming(self) -> tuple[Command, Command]:
        """Claim our CA for all unless there is one, and ask which there is."""
        return ("SET", self._key("ca"), self._ca, "NX"), ("GET", self._key("ca"))

    def _differs(self, claimed: bytes | None) -> str:
        """Return what is wrong with our CA, "" = nothing."""
        theirs = (claimed or b"").decode(errors="replace")
        if theirs in (self._ca, ""):
            return ""
        return (
            f"our CA of tunnels is not that of the other replicas ({_shown(self._ca)}, theirs {_shown(theirs)}): mount "
            "the directory that all share at HP_CERTS_DIR, or copy its frp/ from another replica. If they are another "
            "HaRP, set HP_CLUSTER_PREFIX. If the CA was replaced everywhere, delete the key "
            f"{self._key('ca')} in the store"
        )

    async def _take_name(self) -> None:
        """Have our entry in the store, unless somebody alive has our name. Raises NotAdmitted.

        Who is alive renews its lease, which takes a moment to see. Who has our address as well and does not answer
        there was we ourselves, before a crash.
        """
        key = self._key("member", self.name)
        until = asyncio.get_running_loop().time() + LEASE + RENEWAL
        before: tuple[str, int] | None = None
        while True:
            taken, entry, left = await self._store.ask(self._renewal("NX"), ("GET", key), ("PTTL", key))
            holder = _peer(entry)
            if taken or holder is None or holder.boot == self.boot:
                return
            here = (holder.host, holder.port) == (self._host, self._port)
            if here and not await _is_open(holder.host, holder.port):
                log.info("name taken over", name=self.name, host=holder.host, port=holder.port)
                await self._store.ask(self._renewal())
                return
            renewed = before is not None and before[0] == holder.boot and left > before[1]
            if renewed or asyncio.get_running_loop().time() > until:
                raise NotAdmitted(self._conflict(holder))
            before = holder.boot, left
            await asyncio.sleep(LOOK)

    def _conflict(self, holder: Peer) -> str:
        where = f"{holder.host}:{holder.port}"
        return f"the name {self.name} is another replica's, at {where}: give each a HP_CLUSTER_NAME of its own"

    async def _listen(self, changes: Published) -> None:
        """Wait until something changes, or our entry is to be renewed."""
        message = await changes.next(RENEWAL)
        for _ in range(MOST):  # those that are there already as well, and then one look at all
            if not message:
                return
            with suppress(PeerError):
                change = decoded(message, ComingOrGoing, _wrong)
                peer = self.peers.get(change.name)
                if change.gone and peer is not None and peer.boot == change.boot:
                    self._seen.pop(change.name, None)
            message = await changes.next(0.0)

    async def _synchronise(self) -> None:
        """Renew our entry, and take over what the store says."""
        members, ours = self._key("members"), self._key("member", self.name)
        entry, listed, _, ca = await self._store.ask(("GET", ours), ("SMEMBERS", members), *self._claiming())
        trouble, holder = self._differs(ca), _peer(entry)
        names = sorted({name.decode(errors="replace") for name in listed} - {self.name})[:MOST]
        commands: list[Command] = [("GET", self._key("member", name)) for name in names]
        if holder is not None and holder.boot != self.boot:
            trouble = self._conflict(holder)
        else:
            commands += [self._renewal(), ("SADD", members, self.name)]
            if holder is None or not self._announced:
                commands.append(self._news(gone=False))
            self._announced = True
        entries = (await self._store.ask(*commands))[: len(names)] if commands else []
        found = [(name, _peer(entry)) for name, entry in zip(names, entries, strict=True)]
        there = {name: peer for name, peer in found if peer is not None and peer.name == name}
        if gone := set(names) - set(there):
            await self._store.ask(("SREM", members, *gone))  # one that lives adds itself again
        self._take(there)
        self._settle(trouble)

    def _take(self, there: dict[str, Peer]) -> None:
        now = asyncio.get_running_loop().time()
        self._seen.update(dict.fromkeys(there, now))
        kept = {name: peer for name, peer in self.peers.items() if now - self._seen.get(name, float("-inf")) < KEPT}
        self._seen = {name: seen for name, seen in self._seen.items() if name in kept or name in there}
        peers = {**kept, **there}
        if peers != self.peers:
            self.peers = peers
            self._owner.peers_changed()

    async def _away(self, error: StoreError) -> None:
        """The store has failed: try again later."""
        self._settle(f"the store {self._store} cannot be used: {error}")
        await self._store.close()

    def _settle(self, problem: str) -> None:
        if problem:
            self._warnings.warning("replicas not found", problem)
        elif self.problem:
            log.warning("replicas found again", members=len(self.peers) + 1)
        self.problem = problem


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of the first certificate in a file, "" when there is no file."""
    try:
        text = path.read_text("ascii", errors="replace")
    except OSError:
        return ""  # where it is not the lack of the file, making the certificates says why
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    body = text.partition(begin)[2].partition(end)[0]
    try:
        return sha256(PEM_cert_to_DER_cert(f"{begin}{body}{end}")).hexdigest()
    except ValueError:
        return sha256(text.encode()).hexdigest()


def _shown(fingerprint: str) -> str:
    """Return the beginning of a fingerprint as `openssl x509 -fingerprint -sha256` prints it."""
    return ":".join(fingerprint[place : place + 2] for place in range(0, 16, 2)).upper()


def _peer(entry: bytes | None) -> Peer | None:
    """Return what an entry says; None when there is none, or not one of ours."""
    if not entry:
        return None
    try:
        return decoded(entry, Peer, _wrong)
    except PeerError:
        return None


async def _is_open(host: str, port: int) -> bool:
    """Return whether anybody accepts connections there."""
    try:
        async with asyncio.timeout(KNOCK):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, ValueError, OverflowError):  # or it is no address
        return False
    writer.close()
    return True


def _wrong(error: Exception) -> PeerError:
    return PeerError(f"not an entry of a replica ({type(error).__name__})")
