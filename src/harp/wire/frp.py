"""FRP messages and their two framings (F 2 and F 6).

Version 1: type byte, signed 64-bit length, JSON object of at most 10240 bytes. Version 2: a 7-byte magic at the start
of each connection, then frames of uint16 type, uint16 flags (0), uint32 length and at most 65536 bytes of payload;
the payload of a message is a uint16 id and the same JSON.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from enum import IntEnum
from struct import Struct as Layout
from typing import TypeAlias

import msgspec
from msgspec import Struct, field

from harp.errors import PeerError
from harp.wire.decoding import decoded

MAGIC = bytes.fromhex("46525000020d0a")  # what a client of version 2 sends first on every connection
V1_HEADER = Layout("!cq")  # type byte, length
V1_LIMIT = 10240  # bytes of JSON
V2_HEADER = Layout("!HHI")  # type, flags, length
V2_LIMIT = 65536  # bytes of payload
MESSAGE_ID = Layout("!H")
RANDOM_SIZE = 32  # bytes of clientRandom and serverRandom
AES_GCM = "aes-256-gcm"
SECRETS = frozenset({"metas", "privilege_key", "run_id"})  # fields that are not shown
WRONG_TOKEN = "send Login request to plugin error"  # LoginResp.error for wrong metas: frpc has always shown it (F 3.1)


class Message(Struct, omit_defaults=True):
    """The root of all messages. Zero, "", false and empty collections are left out, as Go's omitempty does."""

    def __repr__(self) -> str:
        """Return the fields that have a value, but for those that prove or carry a secret."""
        absent = type(self)()
        fields = ((name, getattr(self, name)) for name in self.__struct_fields__ if name not in SECRETS)
        shown = (f"{name}={value!r}" for name, value in fields if value != getattr(absent, name))
        return f"{type(self).__name__}({', '.join(shown)})"


class ClientSpec(Struct, omit_defaults=True):
    """Of frps's internal SSH gateway; never to be honoured from the network (F 2.2)."""

    type: str = ""
    always_auth_pass: bool = False


class Login(Message):
    """Client: the first message of a control connection."""

    version: str = ""
    hostname: str = ""
    os: str = ""
    arch: str = ""
    user: str = ""
    privilege_key: str = field(default="")  # of the FRP token, see frp_crypto.privilege_key
    timestamp: int = 0  # Unix seconds
    run_id: str = ""  # the last one the server gave, when the client reconnects
    client_id: str = ""
    metas: dict[str, str] = {}
    client_spec: ClientSpec = field(default_factory=ClientSpec)  # always sent, as {}
    pool_count: int = 0


class LoginResp(Message):
    """Server: accepted under `run_id`, or refused with `error`."""

    version: str = ""
    run_id: str = ""
    error: str = ""


class NewProxy(Message):
    """Client: claim a port and a name. Only the fields that a TCP proxy can have; others are ignored."""

    proxy_name: str = ""
    proxy_type: str = ""  # "" is "tcp"
    use_encryption: bool = False
    use_compression: bool = False
    bandwidth_limit: str = ""
    bandwidth_limit_mode: str = ""  # "" is "client": the client limits itself
    group: str = ""
    remote_port: int = 0
    multiplexer: str = ""


class NewProxyResp(Message):
    """Server: the claim is granted, or refused with `error`."""

    proxy_name: str = ""
    remote_addr: str = ""  # ":23001"; informative
    error: str = ""


class CloseProxy(Message):
    """Client: gives a claim back."""

    proxy_name: str = ""


class NewWorkConn(Message):
    """Client: the first message of a work connection."""

    run_id: str = ""
    privilege_key: str = ""
    timestamp: int = 0


class ReqWorkConn(Message):
    """Server: open one more work connection."""


class StartWorkConn(Message):
    """Server: this work connection is used now; raw bytes follow. With `error` it is refused instead."""

    proxy_name: str = ""
    src_addr: str = ""
    dst_addr: str = ""
    src_port: int = 0
    dst_port: int = 0
    error: str = ""


class Ping(Message):
    """Client: still there."""

    privilege_key: str = ""
    timestamp: int = 0


class Pong(Message):
    """Server: still there; with `error` the client closes the session."""

    error: str = ""


class Unsupported(Struct, frozen=True):
    """A message that FRP knows and we have no use for (visitors, UDP, NAT holes)."""

    name: str


class AnyObject(Struct):
    """The body of an Unsupported message: it must at least be a JSON object."""


class HelloFrame(Struct, frozen=True):
    """A hello frame of version 2. `payload` is kept as it came: the key derivation hashes it (F 6.4)."""

    client: bool
    payload: bytes


Received: TypeAlias = Message | Unsupported | HelloFrame

MESSAGES: tuple[tuple[bytes, int, type[Message]], ...] = (  # v1 type byte, v2 id (F 2.1)
    (b"o", 1, Login),
    (b"1", 2, LoginResp),
    (b"p", 3, NewProxy),
    (b"2", 4, NewProxyResp),
    (b"c", 5, CloseProxy),
    (b"w", 6, NewWorkConn),
    (b"r", 7, ReqWorkConn),
    (b"s", 8, StartWorkConn),
    (b"h", 11, Ping),
    (b"4", 12, Pong),
)
UNSUPPORTED: tuple[tuple[bytes, int | None, str], ...] = (
    (b"v", 9, "NewVisitorConn"),
    (b"3", 10, "NewVisitorConnResp"),
    (b"u", 13, "UDPPacket"),
    (b"i", 14, "NatHoleVisitor"),
    (b"n", 15, "NatHoleClient"),
    (b"m", 16, "NatHoleResp"),
    (b"5", 17, "NatHoleSid"),
    (b"6", 18, "NatHoleReport"),
    (b"d", None, "NatHoleClientDetectOK"),
)
CODES = {message: (letter, number) for letter, number, message in MESSAGES}
KINDS: dict[bytes | int, type[Message] | str] = {}
KINDS.update({letter: message for letter, _, message in MESSAGES})
KINDS.update({number: message for _, number, message in MESSAGES})
KINDS.update({letter: name for letter, _, name in UNSUPPORTED})
KINDS.update({number: name for _, number, name in UNSUPPORTED if number is not None})


class FrameType(IntEnum):
    """Frames of version 2."""

    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    MESSAGE = 16


def encode(message: Message, version: int) -> bytes:
    """`message` in the framing of protocol `version` 1 or 2."""
    letter, number = CODES[type(message)]
    body = msgspec.json.encode(message)
    if version == 1:
        return V1_HEADER.pack(letter, len(body)) + body
    return frame(FrameType.MESSAGE, MESSAGE_ID.pack(number) + body)


def frame(kind: FrameType, payload: bytes) -> bytes:
    """Return a frame of version 2."""
    return V2_HEADER.pack(kind, 0, len(payload)) + payload


class MessageReader:
    """Take messages off the start of a byte stream, one at a time, and not a byte more.

    `version` 1 or 2 says what to expect; None is the server's side of a new connection, where a client of version 2
    begins with MAGIC. feed() adds bytes, next() gives the next complete message, rest() what was not consumed: raw
    bytes follow StartWorkConn, an encrypted stream follows LoginResp. Raises PeerError on an unknown type, a length
    over the limit (before the body is awaited), flags, or JSON that is not such a message.
    """

    def __init__(self, version: int | None = None) -> None:
        self.version = version
        self._buffer = b""

    def feed(self, data: bytes) -> None:
        """Add what arrived. Call next() until it gives None before feeding more, to keep the buffer short."""
        self._buffer += data

    def rest(self) -> bytes:
        """Hand over, and forget, the bytes that no message has consumed."""
        rest, self._buffer = self._buffer, b""
        return rest

    def next(self) -> Received | None:
        """Return the next message, or None until more bytes are fed."""
        if self.version is None and not self._detect():
            return None
        return self._next_v1() if self.version == 1 else self._next_v2()

    def _detect(self) -> bool:
        start = self._buffer[: len(MAGIC)]
        if not start:
            return False
        if start[:1] != MAGIC[:1]:
            self.version = 1
        elif not MAGIC.startswith(start):
            raise PeerError("frp: the magic of version 2 is wrong")
        elif start == MAGIC:
            self.version = 2
            self._buffer = self._buffer[len(MAGIC) :]
        return self.version is not None

    def _next_v1(self) -> Received | None:
        if self._buffer and self._buffer[:1] not in KINDS:
            raise PeerError(f"frp: unknown message type {self._buffer[:1]!r}")
        if len(self._buffer) < V1_HEADER.size:
            return None
        letter, length = V1_HEADER.unpack_from(self._buffer)
        if not 0 <= length <= V1_LIMIT:
            raise PeerError(f"frp: message of {length} bytes, limit {V1_LIMIT}")
        body = self._cut(V1_HEADER.size, length)
        return None if body is None else _decode(KINDS[letter], body)

    def _next_v2(self) -> Received | None:
        if len(self._buffer) < V2_HEADER.size:
            return None
        kind, flags, length = V2_HEADER.unpack_from(self._buffer)
        if flags or length > V2_LIMIT or kind not in FrameType.__members__.values():
            raise PeerError(f"frp: frame type {kind}, flags {flags}, {length} bytes, limit {V2_LIMIT}")
        payload = self._cut(V2_HEADER.size, length)
        if payload is None:
            return None
        if kind != FrameType.MESSAGE:
            return HelloFrame(client=kind == FrameType.CLIENT_HELLO, payload=payload)
        number = int.from_bytes(payload[: MESSAGE_ID.size])
        if len(payload) < MESSAGE_ID.size or number not in KINDS:
            raise PeerError(f"frp: unknown message id {number}")
        return _decode(KINDS[number], payload[MESSAGE_ID.size :])

    def _cut(self, header: int, length: int) -> bytes | None:
        if len(self._buffer) < header + length:
            return None
        body = self._buffer[header : header + length]
        self._buffer = self._buffer[header + length :]
        return body


def _decode(kind: type[Message] | str, body: bytes) -> Received:
    if isinstance(kind, str):
        decoded(body, AnyObject, _bad(kind))
        return Unsupported(kind)
    return decoded(body, kind, _bad(kind.__name__))


def _bad(name: str) -> Callable[[Exception], PeerError]:
    return lambda error: PeerError(f"frp: {name}: {error}")


# Hello payloads of version 2 (F 6.3)


class Bootstrap(Struct, omit_defaults=True, rename="camel"):
    """How the client reached us; informative."""

    transport: str = ""
    tls: bool = False
    tcp_mux: bool = False


class Codecs(Struct):
    codecs: list[str] = []


class Ciphers(Struct, rename="camel"):
    algorithms: list[str] = []
    client_random: str = ""  # base64


class Capabilities(Struct):
    message: Codecs = field(default_factory=Codecs)
    crypto: Ciphers = field(default_factory=Ciphers)


class ClientHello(Struct):
    """What the client can do."""

    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    capabilities: Capabilities = field(default_factory=Capabilities)


class Codec(Struct):
    codec: str = ""


class Cipher(Struct, rename="camel"):
    algorithm: str = ""
    server_random: str = ""  # base64


class Selected(Struct):
    message: Codec = field(default_factory=Codec)
    crypto: Cipher = field(default_factory=Cipher)


class ServerHello(Struct, omit_defaults=True):
    """What the server chose, or why it refuses."""

    selected: Selected | None = None
    error: str = ""


def client_hello(random: bytes, *, tls: bool, mux: bool) -> bytes:
    """Return the payload of a ClientHello that offers what we speak: JSON and AES-256-GCM.

    `random` is 32 fresh bytes.
    """
    ciphers = Ciphers([AES_GCM], b64encode(random).decode())
    return msgspec.json.encode(
        ClientHello(Bootstrap("tcp", tls, mux), Capabilities(Codecs(["json"]), ciphers)),
    )


def server_hello(client_payload: bytes, random: bytes) -> tuple[bytes, str]:
    """Answer a ClientHello. `random` is 32 fresh bytes.

    Gives the payload of the ServerHello and "" or the reason why it refuses; close after sending it then. Raises
    PeerError when the ClientHello is not JSON of this form.
    """
    offer = decoded(client_payload, ClientHello, _bad("ClientHello")).capabilities
    refusal = _refusal(offer)
    if refusal:
        return msgspec.json.encode(ServerHello(error=refusal)), refusal
    selected = Selected(Codec("json"), Cipher(AES_GCM, b64encode(random).decode()))
    return msgspec.json.encode(ServerHello(selected)), ""


def _refusal(offer: Capabilities) -> str:
    if "json" not in offer.message.codecs:
        return "unsupported message codec"
    try:
        random = b64decode(offer.crypto.client_random, validate=True)
    except ValueError:
        random = b""
    if len(random) != RANDOM_SIZE:
        return f"clientRandom must be {RANDOM_SIZE} bytes"
    if AES_GCM not in offer.crypto.algorithms:
        return "no supported crypto algorithm"
    return ""


def check_server_hello(payload: bytes) -> str:
    """Return the client's side: "" when the server chose what we offered, else why it did not. Raises PeerError."""
    hello = decoded(payload, ServerHello, _bad("ServerHello"))
    if hello.error or hello.selected is None:
        return hello.error or "the server selected nothing"
    chosen = hello.selected
    if (chosen.message.codec, chosen.crypto.algorithm) != ("json", AES_GCM):
        return f"the server selected {chosen.message.codec!r} and {chosen.crypto.algorithm!r}"
    return ""
