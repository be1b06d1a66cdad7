"""What a newcomer sees who types something wrong, or too little."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import structlog

from harp.__main__ import COMMANDS, main
from harp.logs import change_level, level
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


class Said(NamedTuple):
    """What a command ends with."""

    code: int
    out: str
    err: str


Harp = Callable[..., Said]


@pytest.fixture
def harp(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Harp]:
    """`harp ...`, in this process: starting another one is most of the work. Keywords are the environment."""
    for name in os.environ:
        if name.startswith(("HP_", "NC_", "APP_")):
            monkeypatch.delenv(name)

    def run(*arguments: str, **environment: str) -> Said:
        with monkeypatch.context() as context:
            for name, value in environment.items():
                context.setenv(name, value)
            try:
                code = main(arguments)
            except SystemExit as ended:  # of argparse
                code = int(ended.code or 0)
        return Said(code, *capsys.readouterr())

    before = level()
    yield run
    change_level(before)
    structlog.reset_defaults()


def test_without_a_command_all_are_shown() -> None:
    argv = [sys.executable, "-m", "harp"]
    done = subprocess.run(argv, env=bare(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert all(f"    {name}" in done.stderr for name in COMMANDS)


def test_a_command_that_is_misspelt_is_guessed(harp: Harp) -> None:
    assert "there is no command 'statsu', did you mean 'status'?" in harp("statsu").err
    assert "there is no command 'xyzzy'; `harp --help` shows all" in harp("xyzzy").err


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


def test_an_option_that_a_command_does_not_have_shows_the_usage_of_that_command(harp: Harp) -> None:
    done = harp("apps", "--app", "x")
    assert done.code == 2
    assert "usage: harp apps" in done.err
    assert "harp apps: error: unrecognized arguments: --app x" in done.err


def test_who_asks_the_running_harp_needs_no_key(harp: Harp) -> None:
    for command in (["status"], ["apps"], ["bans"], ["engine", "list"], ["requests"]):
        done = harp(*command, HP_ADMIN_ADDRESS="127.0.0.1:1")
        assert "the admin listener 127.0.0.1:1 does not answer (Connection refused)" in done.err
    done = harp("status", HP_ADMIN_ADDRESS="nowhere")
    assert "HP_ADMIN_ADDRESS: " in done.err


def test_the_doctor_of_a_harp_that_cannot_start_names_its_settings(harp: Harp) -> None:
    done = harp("doctor", HP_ADMIN_ADDRESS="127.0.0.1:1", HP_CERTS_DIR="/nowhere")
    assert done.code == 1
    for text in ("HaRP runs", "HP_SHARED_KEY: is not set", "NC_INSTANCE_URL: is not set"):
        assert text in done.out


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
def test_dev_says_what_is_wrong_with_its_arguments(harp: Harp, arguments: tuple[str, ...], text: str) -> None:
    done = harp("dev", *arguments)
    assert done.code in (1, 2)
    assert text in done.err
