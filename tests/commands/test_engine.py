"""`harp engine add` and `register`: which remote engine has which port, and what its host needs."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from harp.commands.engine_bundle import EngineWish, add, make, register
from harp.errors import HarpError
from harp.net.targets import Tcp, Unix
from harp.policy.keys import engine_key, engine_of
from harp.settings import Settings, load
from harp.state.engine_names import EngineKeys, EngineNames
from harp.tunnel.client import frpc_config
from tests.fakes.environment import bare
from tests.live.peers import require

KEY = "a key that nobody prints"
FILES = {"frpc.toml", "compose.yaml", "ca.crt", "client.crt", "client.key"}


def environment(directory: Path, **more: str) -> dict[str, str]:
    """Of a HaRP that does not run."""
    return {
        "HP_SHARED_KEY": KEY,
        "NC_INSTANCE_URL": "https://cloud.example.com/nextcloud",
        "HP_CERTS_DIR": str(directory / "certs"),
        "HP_ADMIN_ADDRESS": f"unix:{directory}/admin.sock",
        **more,
    }


def settings(directory: Path, **more: str) -> Settings:
    return load(environment(directory, **more))


def engines(directory: Path) -> dict[int, str]:
    return dict(EngineNames(directory / "certs/frp").all())


def harp(directory: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """`harp engine ...` as a shell has it."""
    return subprocess.run(
        [sys.executable, "-m", "harp", "engine", *arguments],
        env=bare(**environment(directory)),
        cwd=cwd,
        capture_output=True,
        timeout=30,
        check=False,
    )


def test_a_bundle_is_all_that_a_remote_host_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "bundles/gpu1"
    assert add(settings(tmp_path), EngineWish("gpu1"), made, "directory") == 0
    assert {path.name for path in made.iterdir()} == FILES
    config = frpc_config.load(made / "frpc.toml", {})
    (proxy,) = config.proxies
    assert config.server == Tcp("cloud.example.com", 8782)
    assert (proxy.name, proxy.remote_port, proxy.target) == ("gpu1", 24001, Unix("/var/run/docker.sock"))
    assert config.tls is not None
    assert (config.tls.ca, config.tls.certificate, config.tls.server_name) == ("ca.crt", "client.crt", "harp.nc")
    assert config.exit_on_failed_login is False
    assert engine_of(config.metas["token"]) == "gpu1"
    assert config.metas["token"] == engine_key(KEY, "gpu1", EngineKeys(tmp_path / "certs/frp").all()["gpu1"])
    assert KEY not in (made / "frpc.toml").read_text()
    assert (made / "client.crt").read_bytes() == (tmp_path / "certs/frp/client.crt").read_bytes()
    printed = capsys.readouterr().out
    assert KEY not in printed


def test_the_plain_frpc_command_comes_first_and_the_port_that_must_be_open_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(settings(tmp_path), EngineWish("gpu1"), tmp_path / "gpu1", "directory")
    printed = capsys.readouterr().out
    places = [
        printed.index(text)
        for text in (
            "Port 8782 of cloud.example.com must be reachable",
            "frpc -c frpc.toml",
            "docker run -d --name harp-engine-gpu1 --restart unless-stopped",
            "harp engine check 24001",
        )
    ]
    assert places == sorted(places)


def test_a_tunnel_port_that_no_other_host_can_reach_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(settings(tmp_path, HP_FRP_ADDRESS="127.0.0.1:8782"), EngineWish("gpu1"), tmp_path / "gpu1", "directory")
    assert "HP_FRP_ADDRESS is 127.0.0.1:8782, which no other host can reach" in capsys.readouterr().out


def test_nobody_else_reads_the_key(tmp_path: Path) -> None:
    add(settings(tmp_path), EngineWish("gpu1"), tmp_path / "gpu1", "directory")
    for name in ("frpc.toml", "client.key"):
        assert stat.S_IMODE((tmp_path / "gpu1" / name).stat().st_mode) == 0o600


def test_two_engines_never_have_one_port_though_none_is_connected(tmp_path: Path) -> None:
    ports = [make(settings(tmp_path), EngineWish(name)).port for name in ("gpu1", "gpu2", "gpu3")]
    assert ports == [24001, 24002, 24003]
    assert engines(tmp_path) == {24001: "gpu1", 24002: "gpu2", 24003: "gpu3"}


def test_an_engine_that_is_added_again_keeps_its_port(tmp_path: Path) -> None:
    make(settings(tmp_path), EngineWish("gpu1", 24005))
    assert make(settings(tmp_path), EngineWish("gpu1")).port == 24005
    assert make(settings(tmp_path), EngineWish("gpu1", 24006)).port == 24006
    assert engines(tmp_path) == {24006: "gpu1"}


def test_the_port_of_another_engine_is_refused(tmp_path: Path) -> None:
    make(settings(tmp_path), EngineWish("gpu1"))
    with pytest.raises(HarpError, match="port 24001 belongs to the engine gpu1"):
        make(settings(tmp_path), EngineWish("gpu2", 24001))
    assert engines(tmp_path) == {24001: "gpu1"}


def test_when_every_port_is_given_away_that_is_said(tmp_path: Path) -> None:
    few = settings(tmp_path, HP_DOCKER_ENGINE_PORTS="24000,24001")
    make(few, EngineWish("gpu1"))
    with pytest.raises(HarpError, match="no engine port is free; widen HP_DOCKER_ENGINE_PORTS"):
        make(few, EngineWish("gpu2"))


def test_an_engine_whose_client_is_configured_elsewhere_is_registered(tmp_path: Path) -> None:
    register(settings(tmp_path), "deploy daemon 1", 24001)
    register(settings(tmp_path), "gpu2", 24002)
    register(settings(tmp_path), "gpu2", 24001)  # in the place of the first
    assert engines(tmp_path) == {24001: "gpu2"}
    with pytest.raises(HarpError, match="not a name"):
        register(settings(tmp_path), "a\nb", 24003)
    with pytest.raises(HarpError, match="24000 is not a port for a remote engine"):
        register(settings(tmp_path), "gpu3", 24000)


def test_a_bundle_is_never_written_over_another(tmp_path: Path) -> None:
    add(settings(tmp_path), EngineWish("gpu1"), tmp_path / "gpu1", "directory")
    with pytest.raises(HarpError, match="File exists"):
        add(settings(tmp_path), EngineWish("gpu1", 24005), tmp_path / "gpu1", "directory")
    assert frpc_config.load(tmp_path / "gpu1/frpc.toml", {}).proxies[0].remote_port == 24001


def test_a_directory_that_cannot_be_written_names_the_other_ways(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HarpError, match=r"Not a directory; add gpu1 --tar prints it .* add gpu1 --paste"):
        add(settings(tmp_path), EngineWish("gpu1"), tmp_path / "file/gpu1", "directory")


def test_a_place_for_the_names_that_cannot_be_written_gives_no_port(tmp_path: Path) -> None:
    (tmp_path / "certs").touch()
    with pytest.raises(HarpError, match="engine ports are remembered there"):
        make(settings(tmp_path), EngineWish("gpu1"))


def test_a_bundle_comes_as_a_tar_archive_on_standard_output(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = harp(tmp_path, "add", "gpu1", "--tar", cwd=empty)
    assert done.returncode == 0
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert {entry.name for entry in archive} == {f"gpu1/{name}" for name in FILES}
        assert {entry.name: entry.mode for entry in archive}["gpu1/client.key"] == 0o600
    assert b"frpc -c frpc.toml" in done.stderr
    assert KEY.encode() not in done.stderr
    assert list(empty.iterdir()) == []


@pytest.fixture(scope="module")
def paste(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What is to be pasted on the host of an engine."""
    directory = tmp_path_factory.mktemp("paste")
    return harp(directory, "add", "gpu1", "--paste", cwd=directory).stdout


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_a_bundle_comes_as_one_paste_for_any_shell(tmp_path: Path, paste: bytes, shell: str) -> None:
    argv = require_shell(shell)
    subprocess.run(argv, input=paste, cwd=tmp_path, check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "gpu1").iterdir()} == FILES
    assert frpc_config.load(tmp_path / "gpu1/frpc.toml", {}).proxies[0].remote_port == 24001
    assert stat.S_IMODE((tmp_path / "gpu1/frpc.toml").stat().st_mode) == 0o600


def require_shell(name: str) -> list[str]:
    require(name, name)
    return ["busybox", "sh"] if name == "busybox" else [name]


def test_without_tls_there_are_no_certificates(tmp_path: Path) -> None:
    plain = settings(tmp_path, HP_FRP_DISABLE_TLS="true")
    made = tmp_path / "gpu1"
    assert add(plain, EngineWish("gpu1", 24002, "harp.example.com:7000"), made, "directory") == 0
    assert {path.name for path in made.iterdir()} == {"frpc.toml", "compose.yaml"}
    config = frpc_config.load(made / "frpc.toml", {})
    assert (config.server, config.tls) == (Tcp("harp.example.com", 7000), None)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (EngineWish("gpu1", 24000), "24000 is not a port for a remote engine"),
        (EngineWish("gpu1", 24100), "24100 is not a port for a remote engine"),
        (EngineWish("../gpu1"), "not a name for an engine"),
        (EngineWish("gpu1", None, ":8782"), "not an address"),
        (EngineWish("gpu1", None, "host:70000"), "not an address"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_remembered(tmp_path: Path, wish: EngineWish, words: str) -> None:
    with pytest.raises(HarpError, match=words):
        add(settings(tmp_path), wish, tmp_path / "gpu1", "directory")
    assert not (tmp_path / "gpu1").exists()
    assert engines(tmp_path) == {}
