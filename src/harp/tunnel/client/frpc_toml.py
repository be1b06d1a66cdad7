"""ClientConfig -> frpc's TOML, as an ExApp or an engine has it (A 8.1, A 7.5): the one place that writes it.

`exapp/start.sh` does the same in shell for images without Python; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from harp.net.targets import Unix
from harp.tunnel.client.frpc_config import ClientConfig, ClientProxy, ClientTls


def written(config: ClientConfig, comment: str = "") -> str:
    """Return the file's text. Only what an ExApp's or an engine's configuration has is written."""
    lines = [
        *(f"# {line}" for line in comment.splitlines()),
        f"serverAddr = {_quoted(config.server.host)}",
        f"serverPort = {config.server.port}",
        f"loginFailExit = {json.dumps(config.exit_on_failed_login)}",
        *_tls(config.tls),
        *(f"metadatas.{name} = {_quoted(value)}" for name, value in config.metas.items()),
    ]
    for proxy in config.proxies:
        lines += ["", *_proxy(proxy)]
    return "\n".join(lines) + "\n"


def _tls(tls: ClientTls | None) -> Iterator[str]:
    yield f"transport.tls.enable = {json.dumps(tls is not None)}"
    if tls is not None:
        yield f"transport.tls.certFile = {_quoted(tls.certificate)}"
        yield f"transport.tls.keyFile = {_quoted(tls.key)}"
        yield f"transport.tls.trustedCaFile = {_quoted(tls.ca)}"
        yield f"transport.tls.serverName = {_quoted(tls.server_name)}"


def _proxy(proxy: ClientProxy) -> Iterator[str]:
    yield "[[proxies]]"
    yield f"name = {_quoted(proxy.name)}"
    yield 'type = "tcp"'
    yield f"remotePort = {proxy.remote_port}"
    if isinstance(proxy.target, Unix):
        yield "[proxies.plugin]"
        yield 'type = "unix_domain_socket"'
        yield f"unixPath = {_quoted(proxy.target.path)}"
    else:
        yield f"localIP = {_quoted(proxy.target.host)}"
        yield f"localPort = {proxy.target.port}"


def _quoted(text: str) -> str:
    """Return a TOML basic string: JSON's, but for the character that only TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
