"""How a step of the walk has arrived, judged: whose address HaRP sees, and under which name it was called."""

from __future__ import annotations

from harp.settings import Proxies
from harp.state.walks import SeenStep
from harp.status.doctor import fixes
from harp.status.doctor.report import Finding, failed, ok, warning

TITLE = "the client's address arrives"
NAME = "host and scheme arrive"


def address_findings(
    seen: SeenStep, forged: SeenStep | None, proxies: Proxies, *, direct: bool, invented: str
) -> list[Finding]:
    """Judge a step, and one that came with an `invented` address. `direct`: nothing stands between us and HaRP."""
    header = proxies.header
    if direct:
        return [ok("road.address", TITLE, "nothing is in front of HaRP")]
    if not seen.told:
        cause = f"{seen.peer} sends no {header}: all visitors have its address, and one ban hits them all"
        return [failed("road.address", TITLE, cause, fixes.no_address(header))]
    if forged is not None and forged.told.rpartition(",")[2].strip() == invented:  # the proxy's own word comes last
        cause = f"{seen.peer} passes on {header} as clients send it: anybody can take any address"
        return [failed("road.address", TITLE, cause, fixes.no_address(header))]
    if proxies.trusted and not seen.neighbour:
        cause = f"HaRP does not believe {seen.peer}, which names clients: it is not in HP_TRUSTED_PROXY_IPS"
        return [failed("road.address", TITLE, cause, fixes.trusted_proxy(seen.peer))]
    if not proxies.trusted:
        used = "bans alone" if seen.neighbour else "nothing"
        cause = f"HP_TRUSTED_PROXY_IPS is not set, so what {seen.peer} says of clients counts for {used}"
        judged = warning if seen.neighbour else failed
        return [judged("road.address", TITLE, cause, fixes.trusted_proxy(seen.peer))]
    return [ok("road.address", TITLE, f"{seen.peer} says {seen.address}")]


def name_findings(seen: SeenStep, host: str, proto: str) -> list[Finding]:
    """Judge whether HaRP, and with it the ExApp, knows the URL that was called."""
    if seen.host.lower() != host.lower():
        cause = f"HaRP is called as {seen.host}, not as {host}"
        return [warning("road.name", NAME, cause, fixes.HOST)]
    if seen.proto != proto:
        return [warning("road.name", NAME, f"HaRP reads {seen.proto}, not {proto}", fixes.PROTO)]
    return [ok("road.name", NAME)]
