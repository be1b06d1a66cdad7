"""What a newcomer sees who types something wrong, or too little."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from harp.__main__ import COMMANDS
from harp.settings import examine
from tests.fakes.environment import bare

QUIET = {
    "completion",
    "demo",
    "manual",
    "setup",
    "tunnel",
    "version",
}  # of which no variable steers anything
OF_EXAPPS = {"APP_ID", "APP_PORT", "HP_EXAPP_SOCK", "HP_FRP_PORT"}
PRINT_ALL_HELPS = """
import contextlib, sys
from harp.__main__ import main
for name in sys.argv[1:]:
    print(end=chr(0))
    with contextlib.suppress(SystemExit):
        main([name, "--help"])
"""
NAME = re.compile(r"\b(?:HP|NC|APP)_[A-Z0-9_]+\b")


def harp(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "harp", *arguments]
    return subprocess.run(argv, env=bare(**environment), capture_output=True, text=True, timeout=60, check=False)


def test_without_a_command_all_are_shown() -> None:
    done = harp()
    assert (done.returncode, done.stdout) == (2, "")
    assert all(f"    {name}" in done.stderr for name in COMMANDS)


def test_a_command_that_is_misspelt_is_guessed() -> None:
    assert "there is no command 'statsu', did you mean 'status'?" in harp("statsu").stderr
    assert "there is no command 'xyzzy'; `harp --help` shows all" in harp("xyzzy").stderr


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The help of each command, printed by one process: starting is most of the work."""
    argv = [sys.executable, "-c", PRINT_ALL_HELPS, *COMMANDS]
    done = subprocess.run(argv, env=bare(COLUMNS="400"), capture_output=True, text=True, timeout=60, check=True)
    return dict(zip(COMMANDS, done.stdout.split("\0")[1:], strict=True))


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - QUIET))
def test_the_help_of_a_command_names_the_variables_that_it_reads(helps: dict[str, str], name: str) -> None:
    text = helps[name]
    assert text.startswith(f"usage: harp {name} ")
    named = set(NAME.findall(text))
    assert named or "every variable" in text
    known = {value.name for value in examine({}).values} | OF_EXAPPS
    assert {one for one in named if not one.endswith("_")} <= known


def test_an_option_that_a_command_does_not_have_shows_the_usage_of_that_command() -> None:
    done = harp("apps", "--app", "x")
    assert done.returncode == 2
    assert "usage: harp apps" in done.stderr
    assert "harp apps: error: unrecognized arguments: --app x" in done.stderr


def test_who_asks_the_running_harp_needs_no_key() -> None:
    for command in (["status"], ["apps"], ["bans"], ["engine", "list"], ["requests"]):
        done = harp(*command, HP_ADMIN_ADDRESS="127.0.0.1:1")
        assert "the admin listener 127.0.0.1:1 does not answer (Connection refused)" in done.stderr
    done = harp("status", HP_ADMIN_ADDRESS="nowhere")
    assert "HP_ADMIN_ADDRESS: " in done.stderr


def test_the_doctor_of_a_harp_that_cannot_start_names_its_settings() -> None:
    done = harp("doctor", HP_ADMIN_ADDRESS="127.0.0.1:1", HP_CERTS_DIR="/nowhere")
    assert done.returncode == 1
    for text in ("HaRP runs", "HP_SHARED_KEY: is not set", "NC_INSTANCE_URL: is not set"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("a b/../c", "--to", "9000"), "is not an ExApp's id"),
        (("hello", "--to", "nowhere"), "is not HOST:PORT"),
        (("hello", "--to", "9000", "--gateway", "https://x/"), "is not a host with or without a port"),
        (("hello", "--to", "9000", "--gateway", "x"), "HP_SHARED_KEY is not set"),
        (("hello", "--to", "9000", "--gateway", "x"), "--app-port (or APP_PORT) has to be the port"),
        (("hello", "--to", "9000", "--certs", "."), "name it with --gateway"),
    ],
)
def test_dev_says_what_is_wrong_with_its_arguments(arguments: tuple[str, ...], text: str) -> None:
    done = harp("dev", *arguments)
    assert done.returncode in (1, 2)
    assert text in done.stderr
