"""Which of several Nextclouds a request or a tunnel login is for: by its key, else by its host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b

from harp.policy.bans import Denial, Offence
from harp.settings import Settings

ANY_HOST = "*"
LONGEST = 261  # characters of a host; others are not looked up
MOST_TOLD = 8  # hosts of one X-Forwarded-Host that are looked at
SHOWN = 80  # characters of a host in a reason

Speaks = Callable[[str], bool]
"""Does the peer of the request speak for clients of this instance? By the instance's name."""


class InstanceNames:
    """The names of instances by their keys and hosts. `seal` is random: the duration of a look-up reveals nothing."""

    def __init__(self, instances: Iterable[Settings], seal: bytes) -> None:
        self._seal = seal
        self._by_key: dict[bytes, str] = {}
        self._by_host: dict[str, str] = {}
        self._others = ""  # the instance for hosts that nobody has
        for one in instances:
            self._by_key[self._digest(one.shared_key.encode("utf-8", "surrogateescape"))] = one.instance
            self._by_host.update({host: one.instance for host in one.hosts if host != ANY_HOST})
            if ANY_HOST in one.hosts:
                self._others = one.instance

    def by_key(self, key: bytes) -> str:
        """Return the instance with this shared key, "" when there is none."""
        return self._by_key.get(self._digest(key), "") if key else ""

    def by_host(self, host: bytes) -> str:
        """Return the instance with this value of Host, with or without a port; "" when there is none."""
        name = host.decode("latin-1").lower()
        if len(name) > LONGEST:
            return ""
        bare = name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]
        known = self._by_host
        return known.get(name) or known.get(bare) or known.get(bare.rstrip(".")) or ""

    def choose(self, found: dict[bytes, bytes], speaks: Speaks) -> str | Denial:
        """Return the instance that a request with these header lines, by name, is for; or why it is for none."""
        key, host = found.get(b"harp-shared-key"), found.get(b"host", b"")
        named, called = self._told(found.get(b"x-forwarded-host", b""), speaks), host
        named = named or self.by_host(host)
        if key is not None:
            owner = self.by_key(key)
            if owner:
                if named and named != owner:
                    return Denial(421, f"the shared key is that of {owner}, the host that of {named}: is it a mix-up?")
                return owner
            if not named and not self._others:
                return Denial(401, "the shared key is that of no Nextcloud here", Offence.ATTACK)
        named = named or self._others
        if named:
            return named
        if not called:
            return Denial(421, "no Host says which Nextcloud this is for")
        shown = called[:SHOWN].decode("latin-1")
        return Denial(421, f"no Nextcloud here has the host {shown}; add it to the hosts of one in HP_INSTANCES_FILE")

    def _told(self, told: bytes, speaks: Speaks) -> str:
        """Return the instance that the peer's X-Forwarded-Host names, if that instance trusts the peer."""
        for part in told.split(b",", MOST_TOLD)[:MOST_TOLD] if told else ():
            name = self.by_host(part.strip(b" \t"))
            if name and speaks(name):
                return name
        return ""

    def _digest(self, key: bytes) -> bytes:
        return blake2b(key, key=self._seal, digest_size=32).digest()
