"""`harp check --live`: would `harp run` work here? Checks ports, Nextcloud and engine before it starts.

While HaRP runs, the report is that of `harp doctor`.
"""

from __future__ import annotations

import asyncio

from harp.commands.admin import Admin
from harp.commands.doctor import report_of_the_running, taken
from harp.engines.errors import EngineError
from harp.engines.inventory import EngineInventory
from harp.errors import Unreachable
from harp.logs import configure
from harp.net.dial import Dialer
from harp.net.ports import PortTable
from harp.net.resolve import Resolver
from harp.nextcloud.client import NextcloudClient
from harp.policy.decide import CONTROL
from harp.policy.exapp import Trouble, UnknownApp
from harp.policy.ports import LOCAL_ENGINE_PORT
from harp.settings import Address, Logs, Settings
from harp.status.doctor.peers import clock_finding, engine_trouble, nextcloud_fix
from harp.status.doctor.report import Finding, failed, ok

PATIENCE = 8.0  # seconds for the engine


def findings_of(settings: Settings) -> list[Finding]:
    """Return the findings of a running HaRP, or those that one would have if it were started."""
    configure(Logs(level="error", format="text"))
    try:
        return list(report_of_the_running(Admin(settings), {}).findings)
    except Unreachable:
        return [*_ports(settings), *asyncio.run(_peers(settings))]


def _ports(settings: Settings) -> list[Finding]:
    listen = settings.listen
    named: list[tuple[str, tuple[Address, ...]]] = [
        ("HP_EXAPPS_ADDRESS", listen.http),
        ("HP_FRP_ADDRESS", listen.frp),
        ("HP_ADMIN_ADDRESS", listen.admin),
    ]
    if (settings.certs / "cert.pem").exists():
        named.append(("HP_EXAPPS_HTTPS_ADDRESS", listen.https))
    return [
        taken(variable, address) or ok(f"port:{variable}", f"{variable} can be listened on", str(address))
        for variable, addresses in named
        for address in addresses
    ]


async def _peers(settings: Settings) -> list[Finding]:
    loop = asyncio.get_running_loop()
    title = "Nextcloud answers HaRP"
    client = NextcloudClient(settings.nextcloud, settings.shared_key, loop.time)
    try:
        fact = await client.record(CONTROL)
    finally:
        await client.close()
    if isinstance(fact, Trouble) or (isinstance(fact, UnknownApp) and fact.no_appapi):
        nextcloud = failed("nextcloud", title, f"{settings.nextcloud.url}: {fact.reason}", nextcloud_fix(fact.reason))
    else:
        nextcloud = ok("nextcloud", title, settings.nextcloud.url)
    clock = await asyncio.to_thread(clock_finding, settings.nextcloud.url)
    return [nextcloud, clock, await _engine(settings)]


async def _engine(settings: Settings) -> Finding:
    loop = asyncio.get_running_loop()
    resolver, ports = Resolver(loop.time), PortTable()
    dialer = Dialer(ports, resolver, connect=PATIENCE, hold=0)
    inventory = EngineInventory(settings, dialer, ports, loop.time)
    host = settings.engines.host
    check, title = f"engine:{LOCAL_ENGINE_PORT}", f"the engine of this host ({host}) answers"
    try:
        engine = await inventory.engine(LOCAL_ENGINE_PORT, PATIENCE)
    except EngineError as error:
        return engine_trouble(check, title, str(error), host, local=True)
    finally:
        await inventory.close()
        resolver.close()
    facts = engine.facts
    return ok(check, title, f"{facts.version}, API {facts.api}" if facts is not None else "")
