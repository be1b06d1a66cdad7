"""What ExApps and engines write into frpc.toml is understood; the rest is refused in words (A 8.1, A 7.5, F 7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from harp.errors import SettingsError
from harp.net.targets import Tcp, Unix
from harp.tunnel.client.frpc_config import ClientConfig, ClientProxy, ClientTls, load, parse

EXAPP = """
serverAddr = "harp.example"
serverPort = 8782
loginFailExit = false

transport.tls.enable = true
transport.tls.certFile = "/certs/frp/client.crt"
transport.tls.keyFile = "/certs/frp/client.key"
transport.tls.trustedCaFile = "/certs/frp/ca.crt"
transport.tls.serverName = "harp.nc"

metadatas.token = "a \\"key\\""

[[proxies]]
remotePort = 23001
type = "tcp"
name = "my_app"
[proxies.plugin]
type = "unix_domain_socket"
unixPath = "/tmp/exapp.sock"
"""

PROXY = '[[proxies]]\nname = "app"\nremotePort = 23001\nlocalPort = 80\n'


def problems(text: str, **env: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(text, env)
    return caught.value.problems


def test_the_configuration_of_an_exapp_is_understood() -> None:
    assert parse(EXAPP, {}) == ClientConfig(
        server=Tcp("harp.example", 8782),
        exit_on_failed_login=False,
        tls=ClientTls("/certs/frp/ca.crt", "/certs/frp/client.crt", "/certs/frp/client.key", "harp.nc"),
        metas={"token": 'a "key"'},
        proxies=(ClientProxy("my_app", 23001, Unix("/tmp/exapp.sock")),),
    )


def test_an_engine_may_leave_out_tls_and_gets_it_without_verification() -> None:
    engine = EXAPP.replace("transport.tls.enable = true\n", "")
    assert parse(engine, {}).tls is not None
    assert parse("", {}).tls == ClientTls()


def test_tls_can_be_switched_off() -> None:
    assert parse("transport.tls.enable = false", {}).tls is None


def test_what_is_not_written_has_frpcs_own_default() -> None:
    config = parse("", {})
    assert config == ClientConfig(server=Tcp("0.0.0.0", 7000), proxies=())
    assert config.exit_on_failed_login
    assert config.mux
    assert (config.wire, config.pool_count, config.dial_timeout) == (1, 1, 10.0)
    assert (config.ping_interval, config.ping_timeout) == (float("inf"), float("inf"))


def test_without_multiplexing_the_server_wants_pings() -> None:
    config = parse("transport.tcpMux = false", {})
    assert not config.mux
    assert (config.ping_interval, config.ping_timeout) == (30.0, 90.0)


def test_a_negative_time_switches_off() -> None:
    assert parse("transport.heartbeatInterval = -1", {}).ping_interval == float("inf")
    assert parse("transport.heartbeatInterval = 20", {}).ping_interval == 20.0


def test_a_service_may_listen_on_tcp() -> None:
    assert parse(PROXY + 'localIP = "[::1]"', {}).proxies == (ClientProxy("app", 23001, Tcp("::1", 80)),)
    assert parse(PROXY, {}).proxies == (ClientProxy("app", 23001, Tcp("127.0.0.1", 80)),)


def test_a_proxy_can_be_switched_off() -> None:
    assert parse(PROXY + "enabled = false", {}).proxies == ()


def test_the_second_protocol_version_and_scopes_can_be_asked_for() -> None:
    config = parse('transport.wireProtocol = "v2"\nauth.token = "t"\nauth.additionalScopes = ["HeartBeats"]', {})
    assert (config.wire, config.token, config.scopes) == (2, "t", frozenset({"HeartBeats"}))


def test_the_old_first_byte_of_tls_can_be_asked_for() -> None:
    assert parse("transport.tls.disableCustomTLSFirstByte = false", {}).tls == ClientTls(first_byte=True)


def test_what_concerns_frpcs_process_only_is_ignored() -> None:
    text = 'log.level = "debug"\nlog.to = "/tmp/frpc.log"\nwebServer.port = 7400\ntransport.dialServerKeepalive = 60\n'
    assert parse(text, {}) == parse("", {})


def test_the_environment_is_filled_in_as_frpc_does_it() -> None:
    text = 'serverAddr = "{{ .Envs.HP_FRP_ADDRESS }}"\nserverPort = {{.Envs.HP_FRP_PORT}}'
    assert parse(text, {"HP_FRP_ADDRESS": "harp", "HP_FRP_PORT": "8782"}).server == Tcp("harp", 8782)


def test_a_missing_variable_and_other_templates_are_told() -> None:
    assert problems('user = "{{ .Envs.NOBODY }}"\n# {{ range .Envs }}') == [
        "{{ .Envs.NOBODY }}: the environment has no NOBODY; set it",
        "{{ range .Envs }}: only {{ .Envs.NAME }} is filled in; write the value",
    ]


def test_all_problems_are_told_at_once_with_key_fault_and_fix() -> None:
    text = """
        serverPort = 70000
        loginFailExit = "no"
        transport.protocol = "quic"
        transport.proxyURL = "http://proxy:3128"
        transport.wireProtocol = "v3"
        transport.tls.certFile = "/client.crt"
        auth.method = "oidc"
        visitors = []
        [[proxies]]
        name = "web"
        type = "http"
        remotePort = 23001
        transport.useEncryption = true
        transport.useCompression = true
        [[proxies]]
        [[proxies]]
        name = "static"
        remotePort = 23002
        plugin.type = "static_file"
    """
    assert sorted(problems(text)) == sorted(
        [
            "serverPort: is 70000; write a number from 1 to 65535",
            "loginFailExit: must be true or false",
            'transport.protocol: is "quic"; only "tcp" is supported; kcp, quic and websocket are not',
            "transport.proxyURL: is not supported; connect without a proxy, or run the stock frpc",
            'transport.wireProtocol: is "v3"; write "v1" or "v2"',
            "transport.tls.keyFile: is missing; a certificate and its key go together",
            'auth.method: is "oidc"; only "token" is supported',
            "visitors: is not supported by this client; remove it, or run the stock frpc",
            'proxies[web].type: is "http"; only "tcp" is supported',
            'proxies[web].localPort: is missing; write it, or a plugin of type "unix_domain_socket"',
            "proxies[web].transport.useEncryption: is not supported; write false; TLS protects the whole tunnel",
            "proxies[web].transport.useCompression: is not supported; write false; TLS protects the whole tunnel",
            "proxies[2].name: must have 1 to 255 characters",
            "proxies[2].remotePort: is missing; write the port that the server is to offer",
            'proxies[2].localPort: is missing; write it, or a plugin of type "unix_domain_socket"',
            'proxies[static].plugin.type: is "static_file"; only "unix_domain_socket" is supported',
        ]
    )


def test_a_name_is_used_once() -> None:
    assert problems(PROXY + PROXY) == ['proxies: "app" is there 2 times; give each proxy a name of its own']


def test_text_that_is_not_toml_is_told_with_its_place() -> None:
    (problem,) = problems("serverAddr = harp")
    assert problem.startswith("not TOML: ")
    assert "line 1" in problem


def test_the_old_ini_format_is_told() -> None:
    assert problems("[common]\nserver_port = 7000") == [
        "[common]: this is frpc's old INI format; write TOML as frpc 0.52 and newer read it"
    ]


def test_a_file_is_named_in_its_problems(tmp_path: Path) -> None:
    path = tmp_path / "frpc.toml"
    with pytest.raises(SettingsError, match=r"frpc.toml: No such file"):
        load(path, {})
    path.write_text("serverPort = 0")
    with pytest.raises(SettingsError, match=r"frpc.toml: serverPort: is 0"):
        load(path, {})
    path.write_text(EXAPP)
    assert load(path, {}) == parse(EXAPP, {})


def test_no_secret_is_in_the_representation() -> None:
    config = parse(EXAPP + "\n", {})
    assert "key" not in repr(config)
    assert "my_app" in repr(config)
