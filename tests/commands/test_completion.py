"""Completion in the real shells, and the manual page as the real programs read it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harp.__main__ import COMMANDS, main, whole_parser
from harp.commands.completion import HOW, script
from harp.commands.manual import page
from harp.commands.outline import outline_of
from harp.settings import examine
from tests.live.peers import path_of

# Asks each shell what it would offer at the end of a line; the script is $1, the words of the line follow.
ASK = {
    "bash": 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _harp; printf "%s\\n" "${COMPREPLY[@]}"',
    "zsh": 'compdef() {}; compadd() { shift; print -l -- "$@" }; source "$1"; shift; words=("$@"); CURRENT=$#; _harp',
    "fish": 'source $argv[1]; complete -C (string join " " -- $argv[2..-1]) | string replace -r "\\t.*" ""; true',
}


def offered(shell: str, script_file: Path, *line: str) -> set[str]:
    program = path_of(shell, shell)
    start = [program, "-c", ASK[shell]] if shell == "fish" else [program, "-c", ASK[shell], shell]
    env = {"PATH": os.environ["PATH"], "HOME": str(script_file.parent)}
    done = subprocess.run(
        [*start, str(script_file), "harp", *line], env=env, capture_output=True, text=True, timeout=30, check=True
    )
    return {word for word in done.stdout.split("\n") if word.startswith(line[-1])}


@pytest.fixture(params=HOW)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def file(shell: str, tmp_path: Path) -> Path:
    path = tmp_path / f"harp.{shell}"
    path.write_text(script(shell, outline_of(whole_parser())))
    return path


def test_every_command_is_offered(shell: str, file: Path) -> None:
    assert offered(shell, file, "") >= set(COMMANDS)
    assert offered(shell, file, "do") == {"doctor"}


def test_actions_and_options_of_a_command_are_offered(shell: str, file: Path) -> None:
    assert offered(shell, file, "engine", "") >= {"list", "check", "add", "register"}
    assert {"--port", "--address", "--tar", "--paste"} <= offered(shell, file, "engine", "add", "--")
    assert "--paste" not in offered(shell, file, "engine", "list", "--")


def test_choices_of_an_option_are_offered(shell: str, file: Path) -> None:
    assert {"nginx", "caddy", "cloudflared"} <= offered(shell, file, "setup", "--proxy", "")
    assert {"debug", "warning"} <= offered(shell, file, "log-level", "")


def test_the_command_prints_it(shell: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == file.read_text()


def test_the_manual_names_every_command_and_variable() -> None:
    text = page(outline_of(whole_parser())).replace("\\-", "-")
    for name in COMMANDS:
        assert f'.SS "harp {name}' in text
    for value in examine({}).values:
        assert f".B {value.name}\n" in text


def test_the_manual_is_what_man_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manual"]) == 0
    file = tmp_path / "harp.1"
    file.write_text(capsys.readouterr().out)
    done = subprocess.run(
        [path_of("mandoc", "mandoc"), "-Tlint", "-Werror", str(file)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_every_command_that_shows_something_can_show_it_as_json() -> None:
    silent = {"run", "demo", "dev", "tunnel", "exapp", "completion", "manual"}
    making = {"add", "register", "remove", "rotate", "lift"}
    for command in outline_of(whole_parser()).walk():
        if command.path and not command.parts and command.path[0] not in silent and command.path[-1] not in making:
            assert "--json" in command.words, command.path
