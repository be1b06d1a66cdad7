"""What HaRP knows of itself, judged: listeners, process, certificates, bans, tunnels, settings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from harp.logs import RecentWarning
from harp.settings import Settings
from harp.status.doctor import fixes
from harp.status.doctor.report import Finding, failed, ok, skipped, warning
from harp.status.snapshot import AppLine, BanLine, CertificateLine, MemberLine, Snapshot, TunnelLine

DAY = 86400.0
SOON = 21 * DAY
LAG = 0.5  # seconds that a loop may be late
FULL = 0.9  # of all descriptors
SHOWN = 5  # of a list that may be long
REFUSALS = frozenset(("tunnel refused", "tunnel connection refused", "tunnel claim refused", "doubtful tunnel claim"))


class Room(Struct, frozen=True):
    """How many client connections the file descriptors allow."""

    allowed: int
    wanted: int
    need: int  # descriptors for all that are wanted


def process_findings(snapshot: Snapshot, room: Room) -> list[Finding]:
    """Listeners, descriptors, the event loop."""
    findings = []
    down = [f"{name}: {condition.detail}" for name, condition in snapshot.listeners.items() if not condition.ok]
    title = "HaRP accepts connections"
    up = ", ".join(f"{name} on {condition.detail}" for name, condition in snapshot.listeners.items())
    findings.append(
        failed("listeners", title, "; ".join(down), fixes.TUNNEL_PORT) if down else ok("listeners", title, up)
    )
    findings.append(_descriptors(snapshot, room))
    lag, title = snapshot.process.loop_lag, "HaRP keeps up with its work"
    late = warning("lag", title, f"the event loop was {lag:.1f} s late in the last minute", fixes.LAG)
    findings.append(late if lag > LAG else ok("lag", title))
    return findings


def member_findings(members: Sequence[MemberLine]) -> list[Finding]:
    """Return whether all workers or replicas are linked, and find each other; nothing where there is one process."""
    title = "the members of this HaRP find each other"
    bad = [f"{one.name}: {one.trouble or 'not linked'}" for one in members if one.trouble or not one.linked]
    if bad:
        return [warning("members", title, "; ".join(bad[:SHOWN]), fixes.MEMBERS)]
    return [ok("members", title, ", ".join(one.name for one in members))] if members else []


def _descriptors(snapshot: Snapshot, room: Room) -> Finding:
    title = "there are enough file descriptors"
    process = snapshot.process
    fix = f"{fixes.DESCRIPTORS}: docker run --ulimit nofile={room.need}, LimitNOFILE={room.need} in a systemd unit"
    if room.allowed < room.wanted:
        cause = f"{process.most_descriptors} open files allow {room.allowed} connections of {room.wanted}"
        either = f"{fix}, or set HP_MAX_CONNECTIONS={room.allowed}"
        return failed("descriptors", title, cause, either)
    if process.most_descriptors > 0 and process.descriptors > FULL * process.most_descriptors:
        cause = f"{process.descriptors} of {process.most_descriptors} are in use"
        return failed("descriptors", title, cause, fix)
    return ok("descriptors", title)


def certificate_findings(
    certificates: Iterable[CertificateLine], now: float, fix_of: Mapping[str, str]
) -> list[Finding]:
    """Return every certificate of ours by its end; `fix_of` a file."""
    findings = []
    for certificate in certificates:
        days = (certificate.end - now) / DAY
        check, title = f"certificate:{certificate.file}", f"the certificate {certificate.file} is valid"
        fix = fix_of.get(certificate.file, fixes.TUNNEL_CERTIFICATE)
        if days <= 0:
            findings.append(failed(check, title, f"it has expired {-days:.0f} days ago", fix))
        elif certificate.end - now < SOON:
            findings.append(warning(check, title, f"it ends in {days:.0f} days", fix))
        else:
            findings.append(ok(check, title, f"for {days:.0f} days"))
    return findings


def ban_findings(bans: Sequence[BanLine], private: Iterable[BanLine]) -> Finding:
    """`private` are those that may hit a reverse proxy or Nextcloud itself."""
    title = "no reverse proxy is banned"
    hit = [f"{ban.address} ({ban.reason})" for ban in private][:SHOWN]
    if hit:
        return failed("bans", title, f"banned: {', '.join(hit)}", fixes.BAN_PROXY)
    return ok("bans", title, f"{len(bans)} addresses are banned" if bans else "nobody is banned")


def setting_findings(settings: Settings) -> list[Finding]:
    """Return what was tolerated."""
    title = "the settings are in order"
    if not settings.warnings:
        return [ok("settings", title)]
    return [warning("settings", title, text, fixes.SETTING) for text in settings.warnings]


def tunnel_findings(snapshot: Snapshot, named: Mapping[int, str], recent: Sequence[RecentWarning]) -> list[Finding]:
    """Return every tunnel that has to be there; `named` are the engines by port, `recent` the last warnings."""
    holders = {port: tunnel for tunnel in snapshot.tunnels for port in tunnel.ports}
    findings = [_tunnel_of(app, holders, recent) for app in snapshot.apps if app.tunnel]
    for port, name in sorted(named.items()):
        title, check = f"the tunnel of engine {name} (port {port}) is connected", f"tunnel:{name}"
        connected = port in holders
        refused = _refusal_of(name, port, recent)
        cause = f"it is not connected{refused}"
        findings.append(ok(check, title) if connected else failed(check, title, cause, fixes.NO_ENGINE_TUNNEL))
    if not findings:
        findings.append(skipped("tunnels", "tunnels are connected", "no ExApp or engine that is known needs one"))
    stray = [warned for warned in recent if warned.event in REFUSALS and not _explains(warned, snapshot.apps, named)]
    for warned in stray[-SHOWN:]:
        cause = f"{warned.cause} (from {warned.source or 'unknown'})"
        fix = str(warned.fields.get("fix") or fixes.NO_TUNNEL)
        findings.append(warning(f"tunnel client:{warned.source}", "tunnel clients are accepted", cause, fix))
    return findings


def _tunnel_of(app: AppLine, holders: Mapping[int, TunnelLine], recent: Sequence[RecentWarning]) -> Finding:
    check, title = f"tunnel:{app.app}", f"the tunnel of ExApp {app.app} (port {app.port}) is connected"
    holder = holders.get(app.port)
    if holder is None:
        refused = _refusal_of(app.app, app.port, recent)
        fix = fixes.TUNNEL_NAME.replace("ID", app.app) if "name" in refused else fixes.NO_TUNNEL.replace("ID", app.app)
        return failed(check, title, f"no tunnel is connected for port {app.port}{refused}", fix)
    name = dict(zip(holder.ports, holder.names, strict=False)).get(app.port, "")
    if name.lower() != app.app:
        cause = f"the tunnel that holds port {app.port} has the name {name}, not {app.app}"
        return failed(check, title, cause, fixes.TUNNEL_NAME.replace("ID", app.app))
    return ok(check, title, f"from {holder.address}")


def _refusal_of(name: str, port: int, recent: Sequence[RecentWarning]) -> str:
    """Return why it may be that a tunnel is not there, as the log has it."""
    for warned in reversed(recent):
        if warned.event in REFUSALS and (_is_about(warned, name, port) or "port" not in warned.fields):
            return f"; a client from {warned.source or 'somewhere'} was refused: {warned.cause}"
    return ""


def _is_about(warned: RecentWarning, name: str, port: int) -> bool:
    return warned.fields.get("port") == port or str(warned.fields.get("name", "")).lower() == name.lower()


def _explains(warned: RecentWarning, apps: Iterable[AppLine], named: Mapping[int, str]) -> bool:
    """Return whether it has been said with one of these already."""
    things = [*((app.app, app.port) for app in apps), *((name, port) for port, name in named.items())]
    return any(_is_about(warned, name, port) for name, port in things)


def missing_tunnels(findings: Iterable[Finding]) -> bool:
    """Return whether one is missing that has to be there."""
    return any(finding.check.startswith("tunnel:") and finding.state == "failed" for finding in findings)
