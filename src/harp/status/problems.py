"""Current problems and what to do about them, from a snapshot, the worst first."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from harp.status.snapshot import REPLICA, Snapshot

DAY = 86400.0
CERTIFICATE_SOON = 21.0  # days
DESCRIPTORS_FEW = 0.8  # of those allowed
LAG = 1.0  # seconds that the event loop may be late
ERROR, WARNING = "error", "warning"


class Problem(Struct, frozen=True):
    """One thing that is wrong."""

    level: str  # ERROR: something is not served; WARNING: something will not be, or may not
    what: str
    fix: str
    about: str  # the page of the status page that shows more, "" = none


def problems_of(snapshot: Snapshot, now: float) -> list[Problem]:
    """Return every problem that a snapshot shows; `now` is in Unix seconds."""
    found = [
        *_of_listeners(snapshot),
        *_of_nextcloud(snapshot),
        *_of_apps(snapshot),
        *_of_engines(snapshot),
        *_of_cluster(snapshot),
        *_of_certificates(snapshot, now),
        *_of_process(snapshot),
        *_of_members(snapshot),
    ]
    return sorted(found, key=lambda problem: problem.level != ERROR)


def _of_listeners(snapshot: Snapshot) -> Iterator[Problem]:
    for name, condition in snapshot.listeners.items():
        if not condition.ok:
            yield Problem(ERROR, f"The {name} listener is {condition.detail}", "Restart HaRP and look at its log.", "")


def _of_members(snapshot: Snapshot) -> Iterator[Problem]:
    for member in snapshot.members:
        if member.kind == REPLICA and member.leads and member.trouble:
            fix = "Replicas that know each other go on as before. Look at the store, and compare HP_CLUSTER_URL."
            yield Problem(WARNING, f"Replicas that start are not found: {member.trouble}", fix, "members")
        elif member.kind == REPLICA and (not member.linked or member.trouble):
            why = f": {member.trouble}" if member.trouble else ""
            fix = "Requests for tunnels that are connected there wait for it. Its log, and the log here, say more."
            yield Problem(WARNING, f"Replica {member.name} is not linked{why}", fix, "members")
        elif not member.linked:
            fix = "It is started again by itself; `harp members` shows it, and the log why it ended."
            yield Problem(WARNING, f"Worker {member.name} is not linked", fix, "members")


def _of_nextcloud(snapshot: Snapshot) -> Iterator[Problem]:
    for line in snapshot.instances:
        condition = line.nextcloud.condition
        if condition is not None and not condition.ok:
            where = f"{line.instance} at {line.nextcloud.url}"
            what = f"The Nextcloud {where} does not answer as it should: {condition.detail}"
            fix = "Check its url in HP_INSTANCES_FILE. Until then only its PUBLIC routes and AppAPI's calls work."
            yield Problem(ERROR, what, fix, "settings")
    nextcloud = snapshot.nextcloud
    if not snapshot.instances and nextcloud.condition is not None and not nextcloud.condition.ok:
        yield Problem(
            ERROR,
            f"Nextcloud at {nextcloud.url} does not answer as it should: {nextcloud.condition.detail}",
            "Check NC_INSTANCE_URL and the way to it. Until then only PUBLIC routes and AppAPI's calls work.",
            "settings",
        )


def _of(instance: str) -> str:
    return f" of {instance}" if instance else ""


def _of_apps(snapshot: Snapshot) -> Iterator[Problem]:
    for line in snapshot.apps:
        if line.tunnel == "not connected":
            yield Problem(
                ERROR,
                f"ExApp {line.app}{_of(line.instance)} has no tunnel on port {line.port}",
                "Is its container running, and does its log say that frpc connects? It dials port 8782 of this host.",
                f"apps/{line.key}",
            )


def _of_engines(snapshot: Snapshot) -> Iterator[Problem]:
    for engine in snapshot.engines:
        if engine.trouble and engine.last_seen is not None:
            fix = "Is the engine running, and its tunnel connected? `harp engine check` asks it again."
            yield Problem(
                ERROR,
                f"The engine on port {engine.port}{_of(engine.instance)} does not answer: {engine.trouble}",
                fix,
                "engines",
            )


def _of_cluster(snapshot: Snapshot) -> Iterator[Problem]:
    cluster = snapshot.cluster
    if cluster is not None and cluster.trouble:
        fix = "Is its API server reachable from here, and what does its Role allow? `harp engine list` asks again."
        yield Problem(ERROR, f"The cluster cannot be used: {cluster.trouble}", fix, "engines")


def _of_certificates(snapshot: Snapshot, now: float) -> Iterator[Problem]:
    for certificate in snapshot.certificates:
        days = (certificate.end - now) / DAY
        fix = "Renew it, then send HaRP the signal HUP: running connections go on."
        if days <= 0:
            yield Problem(ERROR, f"The certificate {certificate.file} has ended", fix, "certificates")
        elif days < CERTIFICATE_SOON:
            text = f"The certificate {certificate.file} ends in {days:.0f} days"
            yield Problem(WARNING, text, fix, "certificates")


def _of_process(snapshot: Snapshot) -> Iterator[Problem]:
    process = snapshot.process
    if process.most_descriptors > 0 and process.descriptors > DESCRIPTORS_FEW * process.most_descriptors:
        text = f"{process.descriptors} of {process.most_descriptors} file descriptors are in use"
        fix = "Raise the limit of open files (ulimit -n, LimitNOFILE or --ulimit nofile) and restart HaRP."
        yield Problem(WARNING, text, fix, "settings")
    if process.loop_lag > LAG:
        text = f"The event loop was {process.loop_lag:.2f} s late in the last minute"
        fix = "This host has too little processor time for HaRP: look for what else runs here."
        yield Problem(WARNING, text, fix, "")
