"""`harp engine list` and `check`: what the HaRP that runs with these settings knows of its Docker engines."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harp.commands.health import connect
from harp.errors import Unreachable
from harp.policy.ports import LOCAL_ENGINE_PORT
from harp.settings import Address, Settings
from harp.status.engines import EngineLine
from harp.wire.decoding import decoded

PATIENCE = 10.0  # seconds for an answer


def show(settings: Settings) -> int:
    """Print the inventory; the exit code. Raises Unreachable."""
    return _show(inventory(settings))


def check(settings: Settings, ports: Sequence[int]) -> int:
    """Ask these engines, or every one of the inventory, through HaRP as AppAPI does. 1 when one does not answer."""
    return _check(settings, ports or [line.port for line in inventory(settings)])


def _show(lines: Iterable[EngineLine]) -> int:
    print(f"{'port':<6}{'engine':<20}{'API':<14}{'seen':<10}{'tunnel':<24}{'round trip':<12}note")
    for line in lines:
        kind = ("podman " if line.podman else "Docker ") + line.version if line.version else "not asked yet"
        seen = "never" if line.last_seen is None else f"{_age(line.last_seen)} ago"
        tunnel, trip = ("none: local", "") if line.port == LOCAL_ENGINE_PORT else ("not connected", "")
        if line.tunnel is not None:
            tunnel = f"{line.tunnel.name} ({line.tunnel.address})"
            trip = "" if line.tunnel.round_trip is None else f"{line.tunnel.round_trip * 1000:.0f} ms"
        api = line.api.replace(" to ", "-")
        print(f"{line.port:<6}{kind:<20}{api:<14}{seen:<10}{tunnel:<24}{trip:<12}{line.trouble}".rstrip())
    return 0


def _age(moment: float) -> str:
    """How long ago, in one unit."""
    seconds = max(0, int(time.time() - moment))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _check(settings: Settings, ports: Sequence[int]) -> int:
    failed = 0
    for port in ports:
        began = time.monotonic()
        headers = {"harp-shared-key": settings.shared_key, "docker-engine-port": str(port)}
        answer = _get(settings.listen.http[0], "HTTP", "/exapps/app_api/v1.44/_ping", headers)
        took = (time.monotonic() - began) * 1000
        if answer.status == 200:
            print(f"{port}  ok       {took:.0f} ms, {answer.server or 'engine'}, API up to {answer.api}")
        else:
            failed += 1
            print(f"{port}  failing  {answer.status}: {answer.body.decode(errors='replace').splitlines()[0]}")
    return 1 if failed else 0


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    server: str  # the engine's own name and version
    api: str


def _get(address: Address, listener: str, target: str, headers: dict[str, str]) -> _Answer:
    """One request to the running HaRP. Raises Unreachable."""
    client = http.client.HTTPConnection("localhost", timeout=PATIENCE)
    try:
        client.sock = connect(address)
        client.sock.settimeout(PATIENCE)
        client.request("GET", target, headers=headers)
        answer = client.getresponse()
        return _Answer(
            answer.status, answer.read(), answer.getheader("Server", ""), answer.getheader("Api-Version", "")
        )
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(
            f"the {listener} listener {address} does not answer ({error}): does `harp run` run here?"
        ) from error
    finally:
        client.close()


def inventory(settings: Settings) -> list[EngineLine]:
    """Ask the running HaRP for its engines. Raises Unreachable."""
    answer = _get(settings.listen.admin[0], "admin", "/engines", {})
    if answer.status != 200:
        raise Unreachable(
            f"the admin listener {settings.listen.admin[0]} answers {answer.status}: is it another program?"
        )
    return decoded(answer.body, list[EngineLine], lambda error: Unreachable(f"the admin listener answers {error}"))
