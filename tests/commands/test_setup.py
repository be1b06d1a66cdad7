"""`harp setup` prints what fits a site, and nothing that could break a configuration."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
from collections.abc import Mapping

import pytest

from harp.commands.setup import CHOICES, SetupAnswers, SetupRefused, answers_from, pastes_for
from harp.errors import HarpError
from harp.settings import examine
from harp.snippets import PROXIES, ProxySite, filled
from tests.fakes.environment import bare
from tests.live.product import HARP

SECRET = "a key that nobody may read"


def usual(question: str, default: str, choices: Mapping[str, str]) -> str:
    return default


def answers(env: Mapping[str, str] | None = None, **given: str) -> SetupAnswers:
    return answers_from(given, env or {}, usual)


def texts(found: SetupAnswers, kind: str) -> list[str]:
    return [paste.text for paste in pastes_for(found) if paste.kind == kind]


def test_the_occ_command_registers_the_daemon_with_the_shells_own_key() -> None:
    register, check = texts(answers(url="https://cloud.example.com/nc/", harp="harp:8780"), "command")
    words = shlex.split(register)
    assert words[:2] == ["occ", "app_api:daemon:register"]
    assert words[4:8] == ["docker-install", "http", "harp:8780", "https://cloud.example.com/nc"]
    assert words[words.index("--harp_frp_address") + 1] == "harp:8782"
    assert words[-2:] == ["--harp_shared_key", "$HP_SHARED_KEY"]
    assert check.endswith("harp doctor --url https://cloud.example.com/nc")


def test_ways_to_deploy_are_options_of_the_daemon() -> None:
    assert "--harp_exapp_direct" in texts(answers(deploy="direct"), "command")[0]
    manual = texts(answers(deploy="manual"), "command")[0]
    assert "manual-install" in manual
    assert "--harp_docker_socket_port" not in manual


@pytest.mark.parametrize("proxy", CHOICES)
def test_the_variables_are_some_that_harp_knows(proxy: str) -> None:
    (text,) = texts(answers(proxy=proxy, url="https://a.example", nextcloud="http://nextcloud"), "environment")
    names = {line.partition("=")[0] for line in text.splitlines()}
    assert names <= {value.name for value in examine({}).values}
    assert ("HP_REAL_IP_HEADER=CF-Connecting-IP" in text) == (proxy == "cloudflared")
    assert ("HP_GATEWAY_URL=http://nextcloud" in text) == (proxy == "none")


@pytest.mark.parametrize("proxy", PROXIES)
def test_every_snippet_is_filled_for_the_site(proxy: str) -> None:
    found = texts(answers(proxy=proxy, url="https://a.example/nc", harp="harp:9780"), "configuration")
    assert len(found) == len(PROXIES[proxy].files)
    assert "/nc/exapps/" in "".join(found)
    assert "9780" in "".join(found)
    assert "@" not in "".join(found)


def test_the_environment_of_harp_gives_the_defaults() -> None:
    env = {"NC_INSTANCE_URL": "http://nextcloud", "HP_PUBLIC_URL": "https://a.example", "HP_SHARED_KEY": SECRET}
    found = answers(env)
    assert (found.url, found.nextcloud) == ("https://a.example", "http://nextcloud")
    assert SECRET not in str(pastes_for(found))


@pytest.mark.parametrize(
    "site",
    [
        ProxySite(harp="harp; include /etc/passwd"),
        ProxySite(harp="harp:8780;"),
        ProxySite(harp="harp:99999"),
        ProxySite(domain="a.example`) || Host(`b"),
        ProxySite(prefix="/a { deny all; }"),
        ProxySite(nextcloud="http://a\nb"),
    ],
)
def test_what_could_break_a_configuration_is_not_written(site: ProxySite) -> None:
    with pytest.raises(HarpError):
        filled("nginx-location.conf", site)


def test_a_url_is_a_url() -> None:
    with pytest.raises(SetupRefused):
        answers(url="cloud.example.com")


def test_as_json_it_is_one_object() -> None:
    argv = [*HARP, "setup", "--json", "--proxy", "caddy", "--url", "https://a.example"]
    done = subprocess.run(argv, env=bare(), capture_output=True, timeout=30, check=True)
    told = json.loads(done.stdout)
    assert told["answers"]["proxy"] == "caddy"
    assert [paste["kind"] for paste in told["pastes"]] == ["environment", "configuration", "command", "command"]


def test_on_a_terminal_it_asks_for_what_is_not_given_and_asks_again() -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"lighttpd\ncaddy\nhttps://a.example\n\n\n\n\n\n\n")
    argv = [*HARP, "setup", "--device", "cuda"]
    env = bare()
    done = subprocess.run(argv, env=env, stdin=theirs, capture_output=True, text=True, timeout=30, check=True)
    os.close(ours)
    os.close(theirs)
    assert "one of nginx, apache" in done.stderr
    assert "handle /exapps/*" in done.stdout
    assert "occ app_api:daemon:register harp HaRP docker-install http 127.0.0.1:8780 https://a.example" in done.stdout
