"""Stock frpc with what does not do: one warning at the default level says why, and how to put it right (F 1.2)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from tests.live import frp
from tests.live.frp import EXAPP_VERSION, NEWEST, ended, gateway, start_frpc
from tests.live.product import KEY

DAY = timedelta(days=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime.now(UTC) + 1000 * DAY


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frp.make_certificates(tmp_path_factory.mktemp("certs"))


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for a unix socket's path."""
    with tempfile.TemporaryDirectory(prefix="harp-frp-") as path:
        yield Path(path)


def copied(server: Path, directory: Path, *names: str) -> dict[str, object]:
    """frpc's lines for the server's files in `directory`, of which these names are of its own."""
    for name in {"ca.crt", "client.crt", "client.key"} - set(names):
        (directory / name).write_bytes((server / name).read_bytes())
    return frp.tls_of(directory)


def issued(server: Path, directory: Path, begin: datetime) -> dict[str, object]:
    """With a client certificate of the server's own CA that is good for one day."""
    authority = trustme.CA.from_pem((server / "ca.crt").read_bytes(), (server / "ca.key").read_bytes())
    leaf = authority.issue_cert("harp.client.nc", not_before=begin, not_after=begin + DAY)
    leaf.cert_chain_pems[0].write_to_path(str(directory / "client.crt"))
    leaf.private_key_pem.write_to_path(str(directory / "client.key"))
    return copied(server, directory, "client.crt", "client.key")


def without(server: Path, directory: Path) -> dict[str, object]:
    own = ("transport.tls.certFile", "transport.tls.keyFile")
    return {key: value for key, value in copied(server, directory).items() if key not in own}


def foreign(server: Path, directory: Path) -> dict[str, object]:
    other = frp.make_certificates(directory / "other")
    for name in ("client.crt", "client.key"):
        (directory / name).write_bytes((other / name).read_bytes())
    return copied(server, directory, "client.crt", "client.key")


def expired(server: Path, directory: Path) -> dict[str, object]:
    return issued(server, directory, LONG_AGO)


def early(server: Path, directory: Path) -> dict[str, object]:
    return issued(server, directory, FAR_AHEAD)


def distrustful(server: Path, directory: Path) -> dict[str, object]:
    """It has the CA of another HaRP."""
    other = frp.make_certificates(directory / "other")
    (directory / "ca.crt").write_bytes((other / "ca.crt").read_bytes())
    return copied(server, directory, "ca.crt")


def misnamed(server: Path, directory: Path) -> dict[str, object]:
    return {**copied(server, directory), "transport.tls.serverName": "cloud.example.com"}


def plain(server: Path, directory: Path) -> dict[str, object]:
    return {"transport.tls.enable": False}


def websocket(server: Path, directory: Path) -> dict[str, object]:
    return {"transport.tls.enable": False, "transport.protocol": "websocket"}


def wss(server: Path, directory: Path) -> dict[str, object]:
    return {**copied(server, directory), "transport.protocol": "wss"}


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
@pytest.mark.parametrize(
    ("lines", "reason", "fix"),
    [
        (without, "the client has no certificate", "transport.tls.certFile"),
        (foreign, "the client's certificate is not of this server's CA", "copy client.crt, client.key and ca.crt"),
        (expired, "the client's certificate has expired", "copy client.crt, client.key and ca.crt"),
        (early, "the client's certificate is not valid yet", "compare the clocks"),
        (distrustful, "the client does not ", "copy client.crt, client.key and ca.crt"),
        (misnamed, "the client does not ", 'transport.tls.serverName = "harp.nc"'),
        (plain, "the client does not use TLS", "transport.tls.enable = true"),
        (websocket, "the client uses a websocket", 'transport.protocol = "tcp"'),
        (wss, "the client uses a websocket", 'transport.protocol = "tcp"'),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_a_client_that_cannot_come_in_is_one_warning_with_the_cure(
    certificates: Path,
    directory: Path,
    version: str,
    lines: Callable[[Path, Path], dict[str, object]],
    reason: str,
    fix: str,
) -> None:
    with capture_logs() as logged:
        async with gateway(certificates) as server:
            more = {key.replace(".", "__"): value for key, value in lines(certificates, directory).items()}
            file = frp.exapp_toml(server.port, "my_app", 23001, directory / "app.sock", KEY, **more)
            with ended(start_frpc(version, file, directory)) as frpc:
                await frp.until(lambda: frpc.text().count("connect to server error") >= 2, "second attempt")
    # The HaRP of other tests (`harp.testing`) may run in this process, and say something about its requests.
    warnings = [line for line in logged if line["log_level"] == "warning" and "request_id" not in line]
    assert len(warnings) == 1, warnings
    assert warnings[0]["event"] == "tunnel connection refused"
    assert warnings[0]["reason"].startswith(reason)
    assert fix in warnings[0]["fix"]
    assert warnings[0]["source"] == "127.0.0.1"


@pytest.mark.parametrize("version", [EXAPP_VERSION, NEWEST])
@pytest.mark.parametrize(
    ("proxy", "text"),
    [
        ({"transport.useEncryption": True}, "transport.useEncryption is not supported by this server"),
        ({"transport.useCompression": True}, "transport.useCompression is not supported by this server"),
        ({"loadBalancer.group": "g", "loadBalancer.groupKey": "k"}, "loadBalancer.group is not supported"),
        (
            {"transport.bandwidthLimit": "1MB", "transport.bandwidthLimitMode": "server"},
            "transport.bandwidthLimitMode = server is not supported",
        ),
        ({"type": "udp"}, "type [udp] not supported by this server"),
        ({"type": "stcp", "secretKey": "s", "remotePort": None}, "type [stcp] not supported by this server"),
        ({"type": "xtcp", "secretKey": "s", "remotePort": None}, "type [xtcp] not supported by this server"),
        ({"type": "sudp", "secretKey": "s", "remotePort": None}, "type [sudp] not supported by this server"),
        ({"remotePort": 0}, "no available port"),
        ({"remotePort": 24000}, "port not allowed"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(*list(value)[:1]),
)
async def test_what_a_proxy_cannot_have_is_said_in_frpcs_own_log(
    certificates: Path, directory: Path, version: str, proxy: dict[str, object], text: str
) -> None:
    fields = {"name": "my_app", "type": "tcp", "remotePort": 23001, "localPort": 9, **proxy}
    async with gateway(certificates) as server:
        top = {"serverAddr": "127.0.0.1", "serverPort": server.port, "loginFailExit": False, "metadatas.token": KEY}
        lines = {key: value for key, value in fields.items() if value is not None}
        file = f"{frp.toml({**top, **copied(certificates, directory)})}\n[[proxies]]\n{frp.toml(lines)}"
        with ended(start_frpc(version, file, directory)) as frpc:
            await frp.until(lambda: text in frpc.text(), "refusal")
            assert server.server is not None
            assert len(server.server.facts()) == 1  # the tunnel stays
