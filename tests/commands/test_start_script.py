"""exapp/start.sh in every shell that images have, with a stand-in for frpc."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from harp.commands import exapp
from harp.net.targets import Tcp, Unix
from harp.tunnel.client import frpc_config
from harp.tunnel.client.frpc_toml import written
from tests.live.peers import require

SCRIPT = Path(__file__).parents[2] / "exapp/start.sh"
SHELLS = [["dash"], ["bash", "--posix"], ["busybox", "sh"]]
# Says that it runs, remembers its configuration, and lasts.
FRPC = """#!/bin/sh
cat "$2" >"$TRACE.toml"
echo started >>"$TRACE"
exec sleep 60
"""
# Handles a signal and goes on until it may read a line. (A shell could not: QUIT is ignored where it begins.)
HANDLER = """
import os, select, signal, sys
signal.signal(int(sys.argv[1]), lambda number, frame: os.write(1, b"got it\\n"))
print("up", flush=True)
while not select.select([0], [], [], 0.05)[0]:  # a signal just before Python reads is handled after it
    pass
sys.stdin.readline()
sys.exit(9)
"""
PATIENCE = 10.0  # seconds
# As root the script writes /frpc.toml, which every test run on this machine would share: / is read-only for this one,
# and /run, the script's next choice, is its own.
PRIVATE = 'mount -t tmpfs none /run && mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'


class Kit:
    """A directory with the stand-in, and the environment that AppAPI makes."""

    def __init__(self, shell: Sequence[str], directory: Path) -> None:
        private = ["unshare", "--mount", "sh", "-c", PRIVATE, str(directory)] if os.geteuid() == 0 else []
        self._shell = [*private, *shell]
        self.script = SCRIPT
        self.trace = directory / "trace"
        self.directory = directory
        programs = directory / "bin"
        programs.mkdir()
        (programs / "frpc").write_text(FRPC)
        (programs / "frpc").chmod(0o755)
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "TRACE": str(self.trace),
            "HOME": str(directory),
            "HP_SHARED_KEY": 'a "key" with \\',
            "HP_FRP_ADDRESS": "appapi-harp",
            "HP_FRP_PORT": "8782",
            "APP_ID": "hello",
            "APP_PORT": "23000",
        }

    def change(self, line: str, other: str) -> None:
        """From now on, start the script with another value in its head."""
        text = self.script.read_text()
        assert text.count(line) == 1
        self.script = self.directory / "start.sh"
        self.script.write_text(text.replace(line, other))

    def start(self, *command: str, **more: str) -> subprocess.Popen[str]:
        """Start the script with this app, in a session of its own as in a container."""
        return subprocess.Popen(
            [*self._shell, str(self.script), *command],
            env={**self.environment, **more},
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, stdin: str = "", **more: str) -> tuple[int, str]:
        """Exit code and output of an app that ends by itself."""
        process = self.start(*command, **more)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(stdin)
            process.stdin.close()
            code = process.wait(PATIENCE)
            kill_session(process)  # the stand-in has the output open, too
            return code, process.stdout.read()
        finally:
            end(process)

    def tunnels(self) -> int:
        """How many times a tunnel client was started."""
        return len(self.trace.read_text().splitlines()) if self.trace.exists() else 0


def kill_session(process: subprocess.Popen[str]) -> None:
    """Kill what is left, as the end of a container's first process does."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def end(process: subprocess.Popen[str]) -> None:
    """Take leave of the script and all that it has started."""
    kill_session(process)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def until(kit: Kit, tunnels: int) -> None:
    """Wait until a tunnel client was started so many times, and has read its configuration."""
    limit = time.monotonic() + PATIENCE
    while kit.tunnels() < tunnels:
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Kit:
    require(request.param[0], request.param[0])
    return Kit(request.param, tmp_path)


def configuration(kit: Kit) -> Mapping[str, object]:
    return tomllib.loads(Path(f"{kit.trace}.toml").read_text())


def test_the_exit_code_is_the_apps(kit: Kit) -> None:
    assert kit.run("sh", "-c", "exit 3")[0] == 3
    assert kit.run("true")[0] == 0
    assert kit.run("no-such-program")[0] == 127
    assert kit.run("sh", "-c", "kill -KILL $$")[0] == 128 + signal.SIGKILL


def test_the_app_gets_its_arguments_and_its_input(kit: Kit) -> None:
    code, output = kit.run("sh", "-c", 'cat; echo "<$1>"', "app", "two  words", stdin="from outside\n")
    assert code == 0
    assert output.endswith("from outside\n<two  words>\n")


def test_without_a_key_there_is_only_the_app(kit: Kit) -> None:
    code, output = kit.run("sh", "-c", "echo app", HP_SHARED_KEY="")
    assert (code, output, kit.tunnels()) == (0, "app\n", 0)


def test_the_configuration_is_what_harp_exapp_would_write(kit: Kit) -> None:
    nowhere = kit.directory / "nowhere"  # this machine may have certificates in the usual place
    kit.change("certificates=/certs/frp\n", f"certificates={nowhere}\n")
    process = kit.start("sleep", "60", HP_EXAPP_SOCK="/tmp/other.sock")
    try:
        until(kit, tunnels=1)
    finally:
        end(process)
    environment = {**kit.environment, "HP_EXAPP_SOCK": "/tmp/other.sock"}
    assert configuration(kit) == tomllib.loads(written(exapp.configuration(environment, nowhere)))
    config = frpc_config.load(Path(f"{kit.trace}.toml"), {})
    assert config.server == Tcp("appapi-harp", 8782)
    assert config.proxies[0].target == Unix("/tmp/other.sock")
    assert config.tls is None


def test_with_certificates_the_configuration_is_what_harp_exapp_would_write(kit: Kit) -> None:
    certificates = kit.directory / "certs"
    certificates.mkdir()
    kit.change("certificates=/certs/frp\n", f"certificates={certificates}\n")
    process = kit.start("sleep", "60")
    try:
        until(kit, tunnels=1)
    finally:
        end(process)
    expected = exapp.configuration(kit.environment, certificates)
    assert expected.tls is not None
    assert configuration(kit) == tomllib.loads(written(expected))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT])
def test_signals_reach_the_app_which_may_go_on(kit: Kit, number: signal.Signals) -> None:
    process = kit.start(sys.executable, "-c", HANDLER, str(int(number)))
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        while process.stdout.readline() != "up\n":
            pass
        process.send_signal(number)
        assert process.stdout.readline() == "got it\n"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(PATIENCE) == 9
    finally:
        end(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_app_without_handlers_ends_at_once(kit: Kit, number: signal.Signals) -> None:
    process = kit.start("sh", "-c", "echo up; exec sleep 60")
    assert process.stdout is not None
    try:
        while process.stdout.readline() != "up\n":
            pass
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    finally:
        end(process)


def test_a_tunnel_client_that_ends_is_started_again(kit: Kit) -> None:
    (kit.directory / "bin/frpc").write_text(FRPC.replace("exec sleep 60", "exit 1"))
    kit.change("pause=2 ", "pause=0.1 ")
    process = kit.start("sleep", "60")
    try:
        until(kit, tunnels=2)
        assert process.poll() is None
    finally:
        end(process)


def test_what_is_missing_is_told(kit: Kit) -> None:
    code, output = kit.run("true", HP_FRP_PORT="", APP_ID="")
    assert code == 64
    assert "HP_FRP_PORT APP_ID" in output
    assert kit.run()[0] == 64
    (kit.directory / "bin/frpc").unlink()
    code, output = kit.run("true", PATH=f"{kit.directory}/bin:/usr/bin:/bin")
    assert code == 69
    assert "no frpc" in output
