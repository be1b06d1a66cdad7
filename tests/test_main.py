"""The command line, as a shell sees it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiohttp import ClientSession

from harp import __version__
from harp.__main__ import COMMANDS, failed, main
from harp.app import Harp
from harp.commands import check as command
from harp.errors import HarpError
from harp.logs import fingerprint
from harp.settings import examine, load
from harp.testing.hello import Hello
from harp.testing.nextcloud import NextcloudStandIn
from tests.fakes.environment import bare

KEY = "correct horse battery staple"
LEAST = {"HP_SHARED_KEY": KEY, "NC_INSTANCE_URL": "https://cloud.example.com"}
WITHOUT_FILES = {**LEAST, "HP_CERTS_DIR": "/nowhere", "HP_FRP_DISABLE_TLS": "true"}

SMALL = {
    "HP_EXAPPS_ADDRESS": "127.0.0.1:0",
    "HP_FRP_ADDRESS": "127.0.0.1:0",
    "HP_ADMIN_ADDRESS": "127.0.0.1:0",
    "HP_FRP_DISABLE_TLS": "true",
}


def harp(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, with nothing in the environment but `env`."""
    return subprocess.run(
        [sys.executable, "-m", "harp", *arguments],
        env=bare(**env),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def check(env: Mapping[str, str]) -> int:
    """`harp check` with this environment."""
    try:
        return command.check(env)
    except HarpError as error:
        return failed(error)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: harp {name}" in out
    assert COMMANDS[name][1:] in " ".join(out.split())


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"harp {__version__}\n"


def test_no_command_and_an_unknown_one_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: harp" in capsys.readouterr().err
    for arguments in (["serve"], ["demo", "--port", "70000"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "usage: harp" in capsys.readouterr().err


def test_check_passes_good_settings_and_shows_them_without_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert check({**WITHOUT_FILES, "HP_TIMEOUT_CLIENT": "20s"}) == 0
    out, err = capsys.readouterr()
    lines = {tuple(line.split(maxsplit=2)) for line in out.splitlines()}
    assert ("*", "HP_TIMEOUT_CLIENT", "20s") in lines
    assert ("*", "HP_SHARED_KEY", f"28 characters, fingerprint {fingerprint(KEY)}") in lines
    assert KEY not in out + err
    assert err == ""


def test_check_shows_the_fingerprint_of_a_key_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_text(KEY)
    assert check({**WITHOUT_FILES, "HP_SHARED_KEY": "", "HP_SHARED_KEY_FILE": str(tmp_path / "key")}) == 0
    assert fingerprint(KEY) in capsys.readouterr().out


def test_check_gives_no_fingerprint_of_a_short_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert check({**WITHOUT_FILES, "HP_SHARED_KEY": "hunter2"}) == 0
    out = capsys.readouterr().out
    assert fingerprint("hunter2") not in out
    assert "1 warning:\n  HP_SHARED_KEY: " in out


def test_check_fails_with_every_problem_and_every_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    (tmp_path / "frp").touch()
    env = {"NC_INSTANCE_URL": "'cloud'", "HP_BAN_ACTION": "explode", "HP_QQQQ": "", "HP_CERTS_DIR": str(tmp_path)}
    assert check(env) == 1
    out, err = capsys.readouterr()
    assert "5 problems with the settings:" in err
    assert [line.split(":")[0].strip() for line in err.splitlines()[2:]] == [
        "HP_SHARED_KEY",
        "NC_INSTANCE_URL",
        "HP_BAN_ACTION",
        "HP_CERTS_DIR",
        "HP_CERTS_DIR",
    ]
    assert "2 warnings:" in out


def test_check_fails_for_a_certificate_that_https_cannot_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    assert check({**LEAST, "HP_CERTS_DIR": str(tmp_path)}) == 1
    err = capsys.readouterr().err
    assert "1 problem with the settings:\n  HP_CERTS_DIR: " in err
    assert "cert.pem" in err


def test_check_fails_for_tunnel_certificates_that_cannot_be_used_or_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken" / "frp").mkdir(parents=True)
    (tmp_path / "broken" / "frp" / "server.crt").touch()
    (tmp_path / "file").touch()
    for place in ("broken", "file"):
        assert check({**LEAST, "HP_CERTS_DIR": str(tmp_path / place)}) == 1
        assert f"HP_CERTS_DIR: {tmp_path / place}" in capsys.readouterr().err


def test_check_fails_for_an_engines_certificates_and_a_registries_file_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = {"HP_DOCKER_HOST": "tcp://dockerd:2376", "HP_DOCKER_CERT_PATH": str(tmp_path)}
    assert check({**WITHOUT_FILES, **engine, "HP_REGISTRIES_FILE": str(tmp_path / "config.json")}) == 1
    text = "".join(capsys.readouterr())
    assert f"HP_DOCKER_CERT_PATH: {tmp_path} needs ca.pem, cert.pem and key.pem" in text
    assert f"HP_REGISTRIES_FILE: {tmp_path / 'config.json'} cannot be read" in text


def test_check_changes_nothing(tmp_path: Path) -> None:
    assert check({**LEAST, "HP_CERTS_DIR": str(tmp_path / "certs")}) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["run", "check", "health"])
def test_settings_that_cannot_be_used_end_a_command_in_words(command: str) -> None:
    result = harp(command)
    assert result.returncode == 1
    assert "HP_SHARED_KEY: is not set" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_an_address_that_is_taken_ends_run_in_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        others = {"HP_FRP_ADDRESS": "127.0.0.1:0", "HP_ADMIN_ADDRESS": str(tmp_path / "admin.sock")}
        result = harp("run", **LEAST, **others, HP_EXAPPS_ADDRESS=place, HP_CERTS_DIR=str(tmp_path))
    assert result.returncode == 1
    assert place in result.stderr
    assert "Traceback" not in result.stderr
    assert KEY not in result.stdout + result.stderr


def test_tunnel_certificates_that_cannot_be_used_end_run_in_words(tmp_path: Path) -> None:
    (tmp_path / "frp").mkdir()
    (tmp_path / "frp" / "server.crt").write_text("no certificate")
    result = harp("run", **LEAST, HP_CERTS_DIR=str(tmp_path))
    assert result.returncode == 1
    assert f"{tmp_path}/frp/server.crt cannot be read" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_directory_for_certificates_that_cannot_be_made_ends_run_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = harp("run", **LEAST, HP_CERTS_DIR=str(tmp_path / "file"))
    assert result.returncode == 1
    assert f"{tmp_path}/file/frp" in result.stderr
    assert "Traceback" not in result.stderr


def test_health_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    result = harp("health", **LEAST, HP_EXAPPS_ADDRESS=str(tmp_path / "http.sock"), HP_CERTS_DIR=str(tmp_path))
    assert result.returncode == 1
    assert result.stdout.startswith("unhealthy: the HTTP listener ")
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""


@pytest.mark.parametrize("command", ["health", "version"])
def test_a_command_that_runs_every_ten_seconds_loads_no_library_but_that_of_settings(command: str) -> None:
    result = harp(command, **LEAST, PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "harp" in loaded
    assert not loaded & {
        "asyncio",
        "aiohttp",
        "structlog",
        "dataclasses",
        "uvloop",
        "ssl",
        "http.client",
        "cryptography",
    }


def test_a_tunnel_without_its_file_says_so(tmp_path: Path) -> None:
    result = harp("tunnel", "-c", str(tmp_path / "frpc.toml"))
    assert result.returncode == 1
    assert "frpc.toml" in result.stderr
    assert "Traceback" not in result.stderr


TUNNEL = """
serverAddr = "127.0.0.1"
serverPort = {server}
loginFailExit = {fail_exit}
transport.tls.enable = false
metadatas.token = "{key}"
[[proxies]]
name = "hello"
type = "tcp"
localPort = {local}
remotePort = 23001
"""


async def test_a_tunnel_connects_a_local_service_until_it_is_told_to_stop(tmp_path: Path) -> None:
    async with NextcloudStandIn(KEY) as nextcloud, Hello("hello", "app secret") as hello:
        nextcloud.register(hello.record("127.0.0.1", 23001))
        gateway = Harp(load({**LEAST, **SMALL, "NC_INSTANCE_URL": nextcloud.url}))
        await gateway.start()
        try:
            file = tmp_path / "frpc.toml"
            file.write_text(TUNNEL.format(server=gateway.frp_ports[0], local=hello.port, key=KEY, fail_exit="false"))
            tunnel = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "harp", "tunnel", "-c", str(file)), stderr=asyncio.subprocess.PIPE
            )
            await gateway.ports.wait(23001, 20)
            async with ClientSession(f"http://127.0.0.1:{gateway.http_ports[0]}") as client:
                answer = await client.get("/exapps/hello/public")
                assert (answer.status, await answer.text()) == (200, "Hello stranger, this is /public\n")
            tunnel.terminate()
            _, err = await tunnel.communicate()
        finally:
            await gateway.stop(drain=0)
    assert tunnel.returncode == 0
    assert KEY.encode() not in err
    assert b"Traceback" not in err


async def test_a_tunnel_whose_first_login_is_refused_fails_if_its_file_says_so(tmp_path: Path) -> None:
    gateway = Harp(load({**LEAST, **SMALL, "NC_INSTANCE_URL": "http://127.0.0.1:9"}))
    await gateway.start()
    try:
        file = tmp_path / "frpc.toml"
        file.write_text(TUNNEL.format(server=gateway.frp_ports[0], local=1, key="a wrong key", fail_exit="true"))
        result = await asyncio.to_thread(harp, "tunnel", "-c", str(file))
    finally:
        await gateway.stop(drain=0)
    assert result.returncode == 1
    assert "a wrong key" not in result.stderr
    assert "Traceback" not in result.stderr


def test_the_containers_health_check_is_harp_health(tmp_path: Path) -> None:
    script = Path(__file__).parent.parent / "healthcheck.sh"
    fake = tmp_path / "harp"
    fake.write_text('#!/bin/sh\necho "harp $*"; exit 1\n')
    fake.chmod(0o755)
    result = subprocess.run(
        [script], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.returncode) == ("harp health\n", 1)


def test_the_help_of_run_names_every_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    for value in examine({}).values:
        assert value.name in text
