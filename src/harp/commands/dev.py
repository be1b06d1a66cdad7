"""`harp dev NAME --to HOST:PORT`: /exapps/NAME/ leads to a program on this machine, as it will in a Nextcloud.

Everything else is the demo's: a HaRP, and a stand-in for Nextcloud with two users. With --gateway it is a real HaRP, of
a real Nextcloud (`dev_tunnel`). Each request is shown as it ends.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from harp.app import Harp
from harp.commands.arguments import port
from harp.commands.dev_tunnel import DevTunnel, far_gateway
from harp.commands.parts import Parts
from harp.commands.watching import Feed, serve_until_told
from harp.errors import SettingsError
from harp.net.targets import Tcp
from harp.policy.exapp import ExApp, Level, Route
from harp.policy.ports import EXAPP_PORTS
from harp.settings import load
from harp.testing.nextcloud import NextcloudStandIn

VERSION = "1.0.0"
AA_VERSION = "32.0.0"
TUNNELS = 8782  # the usual port of HP_FRP_ADDRESS
APP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
GATEWAY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+))(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class DevOptions:
    """Which app, and where to listen on 127.0.0.1; 0 = any free port."""

    app_id: str
    host: str
    to: int
    level: Level = Level.PUBLIC
    port: int = 8780
    admin_port: int = 8200
    secret: str = ""  # of the app; "" = a new one


class Dev(Parts):
    """One program behind a HaRP. Use it as `async with`."""

    def __init__(self, options: DevOptions) -> None:
        super().__init__()
        self._options = options
        self._secret = options.secret or secrets.token_urlsafe(24)
        self._key = secrets.token_urlsafe(24)
        self.nextcloud = NextcloudStandIn(self._key)

    async def _start(self) -> None:
        options = self._options
        directory = Path(self._stack.enter_context(TemporaryDirectory(prefix="harp-dev-")))
        await self._stack.enter_async_context(self.nextcloud)
        routes = (Route(".*", options.level),)
        app = ExApp(options.app_id.lower(), self._secret, VERSION, options.host, options.to, routes)
        self.nextcloud.register(app)
        self.harp = Harp(
            load(
                {
                    "HP_SHARED_KEY": self._key,
                    "NC_INSTANCE_URL": self.nextcloud.url,
                    "HP_EXAPPS_ADDRESS": f"127.0.0.1:{options.port}",
                    "HP_PUBLIC_URL": f"http://127.0.0.1:{options.port}" if options.port else "",
                    "HP_FRP_ADDRESS": "127.0.0.1:0",
                    "HP_FRP_DISABLE_TLS": "true",
                    "HP_ADMIN_ADDRESS": f"127.0.0.1:{options.admin_port}",
                    "HP_CERTS_DIR": str(directory),
                    "HP_LOCAL_EXAPPS": str(options.to),
                    "HP_BLACKLIST_COUNT": "0",
                    "HP_TIMEOUT_DRAIN": "0",
                }
            )
        )
        await self.harp.start()
        self._stack.push_async_callback(self.harp.stop)
        self.harp.instance.put(app)  # the status page shows it before its first request

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that AppAPI would put into the program's container (A 6.3)."""
        return {
            "AA_VERSION": AA_VERSION,
            "APP_ID": self._options.app_id,
            "APP_SECRET": self._secret,
            "APP_VERSION": VERSION,
            "APP_HOST": self._options.host,
            "APP_PORT": str(self._options.to),
            "NEXTCLOUD_URL": self.nextcloud.url,
        }

    @property
    def feed(self) -> Feed:
        """The feed of its requests."""
        return self.harp.facts.feed

    def text(self) -> str:
        """Return how to reach the program, for people."""
        options = self._options
        base = f"http://127.0.0.1:{self.harp.http_ports[0]}/exapps/{options.app_id}"
        variables = [f"  export {name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return "\n".join(
            (
                f"{base}/ leads to {options.host}:{options.to}, for {options.level.name}.",
                f"Log in as user:user or admin:admin: {self.nextcloud.url}/login, or curl -u user:user {base}/",
                f"Status page: http://127.0.0.1:{self.harp.admin_ports[0]}/apps/{options.app_id.lower()}",
                "",
                "The program gets from AppAPI:",
                *variables,
                "",
                "Requests, as they end (Ctrl-C ends it):",
            )
        )


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("app", type=app_id, metavar="NAME", help="the ExApp's id: its pages are at /exapps/NAME/")
    parser.add_argument("--to", type=target, required=True, metavar="HOST:PORT", help="where the program listens")
    levels = [level.name for level in Level]
    text = "who may use it here: PUBLIC, USER or ADMIN (default: PUBLIC); with --gateway Nextcloud decides"
    parser.add_argument("--level", type=str.upper, choices=levels, default="PUBLIC", help=text)
    parser.add_argument("--port", type=port, default=8780, help="HTTP port on 127.0.0.1 (default: 8780)")
    parser.add_argument("--admin-port", type=port, default=8200, help="admin port on 127.0.0.1 (default: 8200)")
    far = parser.add_argument_group(
        "a real HaRP", "Its key is in HP_SHARED_KEY or HP_SHARED_KEY_FILE, the ExApp is registered in its Nextcloud."
    )
    text = "the tunnel port of a HaRP elsewhere (default port: 8782), instead of the stand-ins"
    far.add_argument("--gateway", type=gateway, metavar="HOST[:PORT]", help=text)
    text = "the port that the ExApp has in Nextcloud (default: APP_PORT)"
    far.add_argument("--app-port", type=port, metavar="PORT", help=text)
    text = "where ca.crt, client.crt and client.key of that HaRP's HP_CERTS_DIR/frp are (without it: no TLS)"
    far.add_argument("--certs", type=Path, metavar="DIR", help=text)


def target(text: str) -> tuple[str, int]:
    """Read HOST:PORT; a port alone is one of this machine."""
    host, colon, number = text.rpartition(":")
    if not colon and not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as localhost:9000")
    found = port(number)
    if found == 0 or found in EXAPP_PORTS:
        taken = f"; {EXAPP_PORTS[0]} to {EXAPP_PORTS[-1]} are names of tunnels" if found else ""
        raise argparse.ArgumentTypeError(f"{number!r} is not a port a program can have{taken}")
    return (host.strip("[]") or "127.0.0.1").replace("localhost", "127.0.0.1"), found


def app_id(text: str) -> str:
    """Read an ExApp's id."""
    if not APP_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an ExApp's id: letters, digits, _ and -")
    return text


def gateway(text: str) -> Tcp:
    """Read HOST[:PORT]."""
    match = GATEWAY.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a host with or without a port, such as harp.example.com:8782"
        )
    return Tcp(match[1] or match[2], port(match[3] or str(TUNNELS)))


def main(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C; return the exit code. Raises SettingsError."""
    host, to = options.to
    if options.gateway is not None:
        far = far_gateway(options.gateway, options.app_port, options.certs, os.environ)
        hint = "docs/exapps.md says what has to be there: the ExApp in Nextcloud, key, port and certificates"
        return serve_until_told(lambda: DevTunnel(options.app, host, to, far), hint)
    if options.app_port is not None or options.certs is not None:
        raise SettingsError(["--app-port and --certs are for a HaRP elsewhere: name it with --gateway"])
    level = Level[options.level]
    secret = os.environ.get("APP_SECRET", "")
    wanted = DevOptions(options.app, host, to, level, options.port, options.admin_port, secret)
    hint = f"Other ports: harp dev {options.app} --port 9780 --admin-port 9200 ..."
    return serve_until_told(lambda: Dev(wanted), hint)
