"""`harp setup`: what to paste where, so that HaRP, the reverse proxy and Nextcloud know each other.

It only prints: it changes and calls nothing. What is not given as an option is asked for on a terminal, and has a
default elsewhere. No key is printed: commands take it from the shell's own HP_SHARED_KEY.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from harp.errors import HarpError
from harp.snippets import PROXIES, ProxySite, filled

GATEWAY = "none"
DEPLOY = {
    "docker": "HaRP deploys ExApps with Docker; they connect by tunnels",
    "direct": "HaRP deploys ExApps with Docker; they are reached directly, in a network that HaRP is in",
    "manual": "ExApps are installed by hand",
}
DEVICES = ("cpu", "cuda", "rocm")
CHOICES = {**{key: proxy.name for key, proxy in PROXIES.items()}, GATEWAY: "no reverse proxy: HaRP is the gateway"}


class SetupRefused(HarpError):
    """The options do not fit together; the text says why."""


class SetupAnswers(Struct, frozen=True):
    """What is known of the site."""

    proxy: str
    url: str  # of Nextcloud, as browsers call it
    harp: str  # HOST:PORT, where the reverse proxy and Nextcloud reach HaRP
    frp: str  # HOST:PORT, where ExApps reach the tunnel port
    nextcloud: str  # where HaRP reaches Nextcloud
    trusted: str  # addresses of the reverse proxy
    deploy: str
    network: str  # of the ExApps' containers
    device: str
    daemon: str  # its name in Nextcloud


class SetupPaste(Struct, frozen=True):
    """One thing to paste."""

    title: str
    kind: str  # "environment", "configuration" or "command"
    text: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--proxy", choices=CHOICES, help="the reverse proxy in front of Nextcloud")
    parser.add_argument("--url", metavar="URL", help="Nextcloud as browsers call it (HP_PUBLIC_URL, NC_INSTANCE_URL)")
    parser.add_argument("--harp", metavar="HOST:PORT", help="where reverse proxy and Nextcloud reach HaRP")
    parser.add_argument("--frp", metavar="HOST:PORT", help="where ExApps reach the tunnel port (HP_FRP_ADDRESS)")
    parser.add_argument("--nextcloud", metavar="URL", help="where HaRP reaches Nextcloud (NC_INSTANCE_URL)")
    text = "addresses of the reverse proxy (HP_TRUSTED_PROXY_IPS)"
    parser.add_argument("--trusted", metavar="ADDRESSES", help=text)
    parser.add_argument("--deploy", choices=DEPLOY, help="how ExApps come to run")
    parser.add_argument("--network", metavar="NAME", help="Docker network of the ExApps (default: exapps)")
    parser.add_argument("--device", choices=DEVICES, help="what ExApps compute with (default: cpu)")
    parser.add_argument("--daemon", metavar="NAME", help="name of the deploy daemon in Nextcloud (default: harp)")


def main(options: argparse.Namespace) -> int:
    """Print what to paste; return the exit code."""
    ask = _asked if sys.stdin.isatty() and not options.json else _default
    answers = answers_from(vars(options), os.environ, ask)
    pastes = pastes_for(answers)
    if options.json:
        print(msgspec.json.encode({"answers": answers, "pastes": pastes}).decode())
        return 0
    for number, paste in enumerate(pastes, 1):
        print(f"\n=== {number}. {paste.title}\n\n{paste.text.strip()}")
    return 0


Ask = Callable[[str, str, Mapping[str, str]], str]
"""(question, default, choices) -> answer."""


def _default(question: str, default: str, choices: Mapping[str, str]) -> str:
    return default


def _asked(question: str, default: str, choices: Mapping[str, str]) -> str:
    """Ask until the answer is one of the choices, if there are any."""
    for key, text in choices.items():
        print(f"  {key:<20} {text}", file=sys.stderr)
    while True:
        print(f"{question} [{default}] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if not answer:
            raise SetupRefused("no answer")
        answer = answer.strip() or default
        if not choices or answer in choices:
            return answer
        print(f"  one of {', '.join(choices)}", file=sys.stderr)


def answers_from(given: Mapping[str, str | None], env: Mapping[str, str], ask: Ask) -> SetupAnswers:
    """Collect the answers: what is `given`, else the environment's or a usual one, confirmed by `ask`."""

    def answer(name: str, question: str, default: str, choices: Mapping[str, str] | None = None) -> str:
        return given.get(name) or ask(question, default, choices or {})

    proxy = answer("proxy", "Which reverse proxy is in front of Nextcloud?", "nginx", CHOICES)
    usual = env.get("HP_PUBLIC_URL") or env.get("NC_INSTANCE_URL") or "https://cloud.example.com"
    url = _url(answer("url", "Nextcloud, as browsers call it?", usual))
    harp = answer("harp", "Where do the reverse proxy and Nextcloud reach HaRP?", "127.0.0.1:8780")
    deploy = answer("deploy", "How do ExApps come to run?", "docker", DEPLOY)
    host, _, _ = harp.rpartition(":")
    tunnel = "appapi-harp:8782" if _is_loopback(host) and deploy != "manual" else f"{host}:8782"
    frp = answer("frp", "Where do ExApps reach the tunnel port?", tunnel)
    nextcloud = _url(answer("nextcloud", "Where does HaRP reach Nextcloud?", env.get("NC_INSTANCE_URL") or url))
    near = "127.0.0.1" if _is_loopback(host) else "172.16.0.0/12"
    trusted = ""
    if proxy != GATEWAY:
        known = env.get("HP_TRUSTED_PROXY_IPS") or near
        trusted = answer("trusted", "Address of the reverse proxy, as HaRP sees it?", known)
    return SetupAnswers(
        proxy=proxy,
        url=url,
        harp=harp,
        frp=frp,
        nextcloud=nextcloud,
        trusted=trusted,
        deploy=deploy,
        network=answer("network", "Docker network of the ExApps?", "exapps"),
        device=given.get("device") or "cpu",
        daemon=given.get("daemon") or "harp",
    )


def _url(text: str) -> str:
    url = text.strip().rstrip("/").removesuffix("/index.php")
    if not url.startswith(("http://", "https://")):
        raise SetupRefused(f"{text!r} is not a URL such as https://cloud.example.com")
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def pastes_for(answers: SetupAnswers) -> list[SetupPaste]:
    """Return what to paste, in order. Raises HarpError when something of it cannot be written."""
    check = f"docker exec appapi-harp harp doctor --url {shlex.quote(answers.url)}"
    return [
        SetupPaste(
            "Environment of HaRP (docker run -e, compose, or the systemd unit)", "environment", _variables(answers)
        ),
        *_front(answers),
        SetupPaste(
            "Nextcloud: register the deploy daemon, in a shell that knows HP_SHARED_KEY", "command", _register(answers)
        ),
        SetupPaste("See whether everything works", "command", check),
    ]


def _variables(answers: SetupAnswers) -> str:
    proxy = PROXIES.get(answers.proxy)
    values = {
        "HP_SHARED_KEY": "<a new secret, such as from: openssl rand -hex 32>",
        "NC_INSTANCE_URL": answers.nextcloud,
        "HP_PUBLIC_URL": "" if answers.url == answers.nextcloud else answers.url,
        "HP_TRUSTED_PROXY_IPS": answers.trusted,
        "HP_REAL_IP_HEADER": proxy.header if proxy is not None and proxy.header != "x-forwarded-for" else "",
        "HP_GATEWAY_URL": answers.nextcloud if answers.proxy == GATEWAY else "",
    }
    return "\n".join(f"{name}={value}" for name, value in values.items() if value)


def _front(answers: SetupAnswers) -> list[SetupPaste]:
    parts = urlsplit(answers.url)
    if answers.proxy == GATEWAY:
        text = (
            f"# Browsers call HaRP: let {parts.netloc} lead to its port 8780, or 8781 with HP_CERTS_DIR/cert.pem.\n"
            "# It passes everything but /exapps/ on to Nextcloud, which has to trust it (config.php):\n"
            "'trusted_proxies' => ['<address of HaRP>'],\n"
            f"'overwriteprotocol' => '{parts.scheme}',"
        )
        return [SetupPaste("HaRP as the gateway", "configuration", text)]
    proxy = PROXIES[answers.proxy]
    site = ProxySite(answers.harp, parts.hostname or "", parts.path, answers.nextcloud)
    reload = f"\n\n# Then: {proxy.reload}" if proxy.reload else ""
    pastes = [SetupPaste(f"{proxy.name}: {file}", "configuration", filled(file, site)) for file in proxy.files]
    last = pastes[-1]
    return [*pastes[:-1], SetupPaste(last.title, last.kind, last.text.rstrip() + reload)]


def _register(answers: SetupAnswers) -> str:
    deploy = "manual-install" if answers.deploy == "manual" else "docker-install"
    words = [
        *("occ", "app_api:daemon:register", answers.daemon, "HaRP", deploy, "http", answers.harp, answers.url),
        *("--net", answers.network, "--harp", "--harp_frp_address", answers.frp),
    ]
    if answers.deploy != "manual":
        words += ["--harp_docker_socket_port", "24000"]
    if answers.deploy == "direct":
        words.append("--harp_exapp_direct")
    words += ["--compute_device", answers.device, "--set-default"]
    return shlex.join(words) + ' --harp_shared_key "$HP_SHARED_KEY"'
