"""`harp engine list` and `check`: what the HaRP that runs with these settings knows of its engines and its cluster."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from harp.commands.health import connect
from harp.commands.tables import ago, of_instances, table
from harp.engines.facts import ClusterStatus
from harp.errors import Unreachable, words_of
from harp.policy.ports import LOCAL_ENGINE_PORT
from harp.settings import Address, Settings
from harp.status.engines import EngineLine
from harp.wire.decoding import decoded

PATIENCE = 10.0  # seconds for an answer


def show(settings: Settings, *, as_json: bool = False) -> int:
    """Print the inventory; return the exit code. Raises Unreachable."""
    if as_json:
        cluster = _cluster(settings) if settings.kubernetes.enabled else None
        print(msgspec.json.encode({"engines": inventory(settings), "cluster": cluster}).decode())
        return 0
    _show(inventory(settings))
    if settings.kubernetes.enabled:
        cluster = _cluster(settings)
        if cluster is not None:
            _show_cluster(cluster)
    return 0


def check(settings: Settings, ports: Sequence[int], *, as_json: bool = False) -> int:
    """Ask these engines, or all known ones, through HaRP as AppAPI does; return 1 if one does not answer."""
    answers = _asked(settings, ports or [line.port for line in inventory(settings)])
    if as_json:
        print(msgspec.json.encode({"engines": answers}).decode())
    else:
        print("\n".join(map(_line, answers)))
    return 0 if all(answer.ok for answer in answers) else 1


def _show(lines: Iterable[EngineLine]) -> None:
    headers = ("port", "engine", "API", "seen", "tunnel", "round trip", "note")
    print(of_instances(headers, list(lines), _row))


def _show_cluster(cluster: ClusterStatus) -> None:
    print(f"\nKubernetes {cluster.api_server}, namespace {cluster.namespace}: {cluster.trouble or 'in order'}")
    rows = [(one.name, one.app, f"{one.ready} of {one.replicas}", one.address, one.note) for one in cluster.exapps]
    print(table(("name", "ExApp", "ready", "address", "note"), rows))
    for feature, text in cluster.missing_rights.items():
        print(f"right missing ({feature}): {text}")


def _row(line: EngineLine) -> tuple[str, ...]:
    kind = ("podman " if line.podman else "Docker ") + line.version if line.version else "not asked yet"
    seen = "never" if line.last_seen is None else f"{ago(line.last_seen)} ago"
    tunnel, trip = ("none: local", "") if line.port == LOCAL_ENGINE_PORT else ("not connected", "")
    if line.tunnel is not None:
        tunnel = f"{line.tunnel.name} ({line.tunnel.address})"
        trip = "" if line.tunnel.round_trip is None else f"{line.tunnel.round_trip * 1000:.0f} ms"
    return str(line.port), kind, line.api.replace(" to ", "-"), seen, tunnel, trip, line.trouble


class EngineCheck(Struct, frozen=True):
    """What an engine has answered to a ping."""

    port: int
    ok: bool
    seconds: float
    answer: str  # what it is, or why there is no good answer


def _asked(settings: Settings, ports: Sequence[int]) -> list[EngineCheck]:
    checks = []
    for port in ports:
        began = time.monotonic()
        headers = {"harp-shared-key": settings.shared_key, "docker-engine-port": str(port)}
        answer = _get(settings.listen.http[0], "HTTP", "/exapps/app_api/v1.44/_ping", headers)
        ok = answer.status == 200
        why = (answer.body.decode(errors="replace").splitlines() or [""])[0]
        text = f"{answer.server or 'engine'}, API up to {answer.api}" if ok else f"{answer.status}: {why}"
        checks.append(EngineCheck(port, ok, time.monotonic() - began, text))
    return checks


def _line(check: EngineCheck) -> str:
    if check.ok:
        return f"{check.port}  ok       {check.seconds * 1000:.0f} ms, {check.answer}"
    return f"{check.port}  failing  {check.answer}"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    server: str  # the engine's own name and version
    api: str


def _get(address: Address, listener: str, target: str, headers: dict[str, str]) -> _Answer:
    """Ask the running HaRP. Raises Unreachable."""
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
        why = words_of(error) if isinstance(error, OSError) else str(error)
        text = f"the {listener} listener {address} does not answer ({why}): does `harp run` run here?"
        raise Unreachable(text) from error
    finally:
        client.close()


class _ClusterPage(Struct):
    cluster: ClusterStatus | None


def _cluster(settings: Settings) -> ClusterStatus | None:
    """Ask the running HaRP for its cluster. Raises Unreachable."""
    answer = _get(settings.listen.admin[0], "admin", "/api/v1/cluster", {})
    if answer.status != 200:
        return None
    return decoded(answer.body, _ClusterPage, lambda error: Unreachable(f"the admin listener answers {error}")).cluster


def inventory(settings: Settings) -> list[EngineLine]:
    """Ask the running HaRP for its engines. Raises Unreachable."""
    answer = _get(settings.listen.admin[0], "admin", "/engines", {})
    if answer.status != 200:
        raise Unreachable(
            f"the admin listener {settings.listen.admin[0]} answers {answer.status}: is it another program?"
        )
    lines = decoded(answer.body, list[EngineLine], lambda error: Unreachable(f"the admin listener answers {error}"))
    return [line for line in lines if settings.instance in ("", line.instance)]
