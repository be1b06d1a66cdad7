"""What we write is what we read, and what frpc reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harp.net.targets import Tcp, Unix
from harp.tunnel.client.frpc_config import ClientConfig, ClientProxy, ClientTls, parse
from harp.tunnel.client.frpc_toml import written

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda text: "{{" not in text)
ports = st.integers(1, 65535)
targets = st.one_of(st.builds(Unix, texts), st.builds(Tcp, st.just("127.0.0.1"), ports))
proxies = st.builds(ClientProxy, texts, ports, targets)
configs = st.builds(
    ClientConfig,
    server=st.builds(Tcp, st.sampled_from(["harp.example.com", "192.0.2.1", "2001:db8::1"]), ports),
    proxies=st.tuples(proxies),
    tls=st.none() | st.builds(ClientTls, texts, texts, texts, texts),
    exit_on_failed_login=st.booleans(),
    metas=st.fixed_dictionaries({"token": texts}),
)


@given(configs)
def test_what_is_written_is_read_as_it_was(config: ClientConfig) -> None:
    assert parse(written(config, 'a "comment"\nof two lines'), {}) == config


def test_an_exapps_file_looks_as_ever() -> None:
    config = ClientConfig(
        server=Tcp("appapi-harp", 8782),
        proxies=(ClientProxy("hello", 23000, Unix("/tmp/exapp.sock")),),
        tls=ClientTls("/certs/frp/ca.crt", "/certs/frp/client.crt", "/certs/frp/client.key", "harp.nc"),
        exit_on_failed_login=False,
        metas={"token": "the key"},
    )
    assert (
        written(config)
        == """\
serverAddr = "appapi-harp"
serverPort = 8782
loginFailExit = false
transport.tls.enable = true
transport.tls.certFile = "/certs/frp/client.crt"
transport.tls.keyFile = "/certs/frp/client.key"
transport.tls.trustedCaFile = "/certs/frp/ca.crt"
transport.tls.serverName = "harp.nc"
metadatas.token = "the key"

[[proxies]]
name = "hello"
type = "tcp"
remotePort = 23000
[proxies.plugin]
type = "unix_domain_socket"
unixPath = "/tmp/exapp.sock"
"""
    )
