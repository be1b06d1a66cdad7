"""`harp engine add`: the bundle for a remote host."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from harp.commands.engine import Bundle, add
from harp.net.targets import Tcp, Unix
from harp.settings import Settings, load
from harp.tunnel.client import frpc_config

KEY = "a key that nobody prints"


def settings(directory: Path, **more: str) -> Settings:
    """Of a HaRP that does not run."""
    return load(
        {
            "HP_SHARED_KEY": KEY,
            "NC_INSTANCE_URL": "https://cloud.example.com/nextcloud",
            "HP_CERTS_DIR": str(directory / "certs"),
            "HP_ADMIN_ADDRESS": f"unix:{directory}/admin.sock",
            **more,
        }
    )


def bundle(directory: Path, port: int | None = None, address: str | None = None, name: str = "gpu1") -> Bundle:
    return Bundle(name, directory / "bundles" / "gpu1", port, address, "appapi-harp")


def test_a_bundle_is_all_that_a_remote_host_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(settings(tmp_path), bundle(tmp_path)) == 0
    made = tmp_path / "bundles/gpu1"
    assert {path.name for path in made.iterdir()} == {
        "frpc.toml",
        "compose.yaml",
        "ca.crt",
        "client.crt",
        "client.key",
    }
    config = frpc_config.load(made / "frpc.toml", {})
    (proxy,) = config.proxies
    assert config.server == Tcp("cloud.example.com", 8782)
    assert (proxy.name, proxy.remote_port, proxy.target) == ("gpu1", 24001, Unix("/var/run/docker.sock"))
    assert config.tls is not None
    assert (config.tls.ca, config.tls.server_name) == ("/engine/ca.crt", "harp.nc")
    assert config.exit_on_failed_login is False
    assert (made / "client.crt").read_bytes() == (tmp_path / "certs/frp/client.crt").read_bytes()
    printed = capsys.readouterr().out
    assert "docker run -d --name harp-engine-gpu1 --restart unless-stopped" in printed
    assert KEY not in printed


def test_nobody_else_reads_the_key(tmp_path: Path) -> None:
    add(settings(tmp_path), bundle(tmp_path))
    assert stat.S_IMODE((tmp_path / "bundles/gpu1/frpc.toml").stat().st_mode) == 0o600


def test_a_bundle_is_never_written_over_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(settings(tmp_path), bundle(tmp_path)) == 0
    assert add(settings(tmp_path), bundle(tmp_path, 24005)) == 1
    assert "exists" in capsys.readouterr().err
    assert frpc_config.load(tmp_path / "bundles/gpu1/frpc.toml", {}).proxies[0].remote_port == 24001


def test_without_tls_there_are_no_certificates(tmp_path: Path) -> None:
    assert add(settings(tmp_path, HP_FRP_DISABLE_TLS="true"), bundle(tmp_path, 24002, "harp.example.com:7000")) == 0
    made = tmp_path / "bundles/gpu1"
    assert {path.name for path in made.iterdir()} == {"frpc.toml", "compose.yaml"}
    config = frpc_config.load(made / "frpc.toml", {})
    assert (config.server, config.tls) == (Tcp("harp.example.com", 7000), None)


@pytest.mark.parametrize(
    ("port", "address", "name", "words"),
    [
        (24000, None, "gpu1", "24000 is not a port for a remote engine"),
        (24100, None, "gpu1", "24100 is not a port for a remote engine"),
        (None, "", "../gpu1", "no name for an engine"),
        (None, ":8782", "gpu1", "no address"),
    ],
)
def test_what_cannot_be_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    port: int | None,
    address: str | None,
    name: str,
    words: str,
) -> None:
    assert add(settings(tmp_path), bundle(tmp_path, port, address, name)) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "bundles").exists()
