"""`harp exapp`: what it makes of the environment, and how it treats the app."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harp.commands.exapp import configuration
from harp.errors import SettingsError
from harp.net.targets import Tcp, Unix
from tests.fakes.environment import bare

ENVIRONMENT = {
    "HP_SHARED_KEY": "the key",
    "HP_FRP_ADDRESS": "127.0.0.1",
    "HP_FRP_PORT": "1",
    "APP_ID": "hello",
    "APP_PORT": "23000",
}
PATIENCE = 20.0  # seconds


def start(*command: str, **more: str) -> subprocess.Popen[str]:
    """`harp exapp` with this app; nobody answers at the tunnel server's address."""
    return subprocess.Popen(
        [sys.executable, "-m", "harp", "exapp", "--", *command],
        env=bare(**{**ENVIRONMENT, **more}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*command: str, stdin: str = "", **more: str) -> tuple[int, str, str]:
    """Exit code and both outputs of an app that ends by itself."""
    with start(*command, **more) as process:
        output, errors = process.communicate(stdin, PATIENCE)
    return process.returncode, output, errors


def test_the_tunnel_is_that_of_the_start_script(tmp_path: Path) -> None:
    config = configuration(ENVIRONMENT, tmp_path / "none")
    (proxy,) = config.proxies
    assert (config.server, config.tls, config.exit_on_failed_login) == (Tcp("127.0.0.1", 1), None, False)
    assert config.metas == {"token": "the key"}
    assert (proxy.name, proxy.remote_port, proxy.target) == ("hello", 23000, Unix("/tmp/exapp.sock"))
    other = configuration({**ENVIRONMENT, "HP_EXAPP_SOCK": "/run/app.sock"}, tmp_path / "none")
    assert other.proxies[0].target == Unix("/run/app.sock")


def test_certificates_mean_tls(tmp_path: Path) -> None:
    tls = configuration(ENVIRONMENT, tmp_path).tls
    assert tls is not None
    assert (tls.ca, tls.certificate) == (str(tmp_path / "ca.crt"), str(tmp_path / "client.crt"))
    assert (tls.key, tls.server_name) == (str(tmp_path / "client.key"), "harp.nc")


def test_every_variable_that_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        configuration({"HP_SHARED_KEY": "the key", "HP_FRP_PORT": "70000", "APP_PORT": "x"}, tmp_path)
    assert refused.value.problems == [
        "HP_FRP_ADDRESS is not set, while HP_SHARED_KEY is; AppAPI sets both",
        "APP_ID is not set, while HP_SHARED_KEY is; AppAPI sets both",
        'HP_FRP_PORT is "70000"; it must be a port number',
        'APP_PORT is "x"; it must be a port number',
    ]


def test_the_exit_code_is_the_apps() -> None:
    assert run("sh", "-c", "exit 3")[0] == 3
    assert run("sh", "-c", "kill -KILL $$")[0] == 128 + signal.SIGKILL
    code, _, errors = run("no-such-program")
    assert (code, errors.splitlines()[-1]) == (127, "harp exapp: no-such-program: No such file or directory")
    assert run("/etc/passwd")[0] == 126


def test_the_app_has_its_input_and_its_output_to_itself() -> None:
    code, output, errors = run("sh", "-c", 'cat; echo "<$1>"', "app", "two  words", stdin="from outside\n")
    assert (code, output) == (0, "from outside\n<two  words>\n")
    assert "the key" not in errors


@pytest.mark.parametrize("key", ["", "the key"], ids=["directly", "with a tunnel"])
def test_options_of_the_app_are_the_apps(key: str) -> None:
    assert run("echo", "-n", "--port", "1", "--", "x", HP_SHARED_KEY=key)[:2] == (0, "--port 1 -- x")


def test_wrong_variables_are_told_before_the_app_starts() -> None:
    code, output, errors = run("echo", "started", HP_FRP_PORT="")
    assert (code, output) == (64, "")
    assert "HP_FRP_PORT" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGQUIT])
def test_signals_reach_the_app_which_may_go_on(number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    with start("sh", "-c", f"trap 'echo got it' {name}; echo up; read line; read line; exit 9") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "got it\n"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(PATIENCE) == 9
