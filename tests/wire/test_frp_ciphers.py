"""Encrypted streams of the control connection: the vectors of F 9."""

from __future__ import annotations

import pytest

from harp.errors import PeerError
from harp.wire import frp
from harp.wire.frp_ciphers import CfbDecryptor, CfbEncryptor, GcmDecryptor, GcmEncryptor
from harp.wire.frp_crypto import control_key

CLIENT_IV = bytes(range(16))
PING = frp.encode(frp.Ping(), 1)
NEW_PROXY = frp.encode(frp.NewProxy("my_app", "tcp", remote_port=23001), 1)
SERVER_KEY = bytes.fromhex("ad14cde1bb8c0ece6e47aa087439e6e93739da7e37fd2423d6b9306243b0894f")
NONCE = bytes(range(16, 28))
REQUEST_FRAME = bytes.fromhex("001000000000000400077b7d")
REQUEST_RECORD = bytes.fromhex("0000001cca1bbd9152d24000b5d405027e7c256b5f61a2466bb420cd771e58cc")
GO_RECORDS = bytes.fromhex(
    "00000018ca1bbd9152d24000b8f161319831fad8181d8bb44969935900000014e17637ce6d63e6d7a52158359da40b8c9a9767b6"
)


def test_cfb_sends_the_iv_once_and_runs_on_over_messages() -> None:
    client = CfbEncryptor(control_key(""), CLIENT_IV)
    assert client.encrypt(PING).hex() == CLIENT_IV.hex() + "9130610abcb682c5556510"
    assert client.encrypt(NEW_PROXY).hex() == (
        "4c04400c674dddafedb32797bd7455c8690a521a26c3166a04944f3217cf1fc400dbbbd2245f868786f2860cb7b3a21dc5019ea7f71a64"
        "15354d85d7dacf3f04586e71a451409e"
    )


def test_cfb_of_the_server_and_with_a_token() -> None:
    iv = bytes(range(0xF0, 0x100))
    server = CfbEncryptor(control_key(""), iv)
    assert server.encrypt(frp.encode(frp.ReqWorkConn(), 1)).hex() == iv.hex() + "37c40b81d8270904eac16c"
    assert server.encrypt(frp.encode(frp.NewProxyResp("my_app", ":23001"), 1)).hex() == (
        "03c6ff290c466610464d7ae6f77f8e8ef04c7d6679b7b798692f0ef67de5b4a1c1d545aa43783947070803e520317c8331bda638f5e3fd"
    )
    assert server.encrypt(frp.encode(frp.Pong(), 1)).hex() == "0a21c212e3fc613b0bb325"
    assert CfbEncryptor(control_key("secret"), CLIENT_IV).encrypt(PING)[16:].hex() == "dc0f8df813e99ddbfa42ac"


def test_cfb_decrypts_any_slicing() -> None:
    wire = CfbEncryptor(control_key(""), CLIENT_IV).encrypt(PING + NEW_PROXY)
    for cut in range(len(wire)):
        decryptor = CfbDecryptor(control_key(""))
        assert decryptor.decrypt(wire[:cut]) + decryptor.decrypt(wire[cut:]) == PING + NEW_PROXY


def test_gcm_seals_a_frame_as_one_record_behind_the_nonce() -> None:
    server = GcmEncryptor(SERVER_KEY, NONCE)
    assert server.encrypt(REQUEST_FRAME) == NONCE + REQUEST_RECORD
    assert server.encrypt(REQUEST_FRAME)[:4] == REQUEST_RECORD[:4]  # no nonce again


@pytest.mark.parametrize("records", [REQUEST_RECORD, GO_RECORDS])
def test_gcm_opens_any_division_into_records_and_any_slicing(records: bytes) -> None:
    wire = NONCE + records
    for cut in range(len(wire)):
        decryptor = GcmDecryptor(SERVER_KEY)
        assert decryptor.decrypt(wire[:cut]) + decryptor.decrypt(wire[cut:]) == REQUEST_FRAME


def test_gcm_counts_its_nonce_up_and_over_the_end() -> None:
    encryptor, decryptor = GcmEncryptor(SERVER_KEY, b"\xff" * 12), GcmDecryptor(SERVER_KEY)
    assert [decryptor.decrypt(encryptor.encrypt(text)) for text in (b"one", b"two", b"three")] == [
        b"one",
        b"two",
        b"three",
    ]


def test_gcm_cuts_what_is_longer_than_a_record() -> None:
    text = bytes(70000)
    assert GcmDecryptor(SERVER_KEY).decrypt(GcmEncryptor(SERVER_KEY, NONCE).encrypt(text)) == text


def test_gcm_notices_any_changed_byte() -> None:
    wire = NONCE + REQUEST_RECORD
    for at in range(16, len(wire)):
        damaged = wire[:at] + bytes([wire[at] ^ 1]) + wire[at + 1 :]
        with pytest.raises(PeerError, match="damaged"):
            GcmDecryptor(SERVER_KEY).decrypt(damaged)


@pytest.mark.parametrize("length", [0, 15, 65553, 0xFFFFFFFF])
def test_gcm_refuses_a_record_length_before_the_record(length: int) -> None:
    with pytest.raises(PeerError, match="encrypted record of"):
        GcmDecryptor(SERVER_KEY).decrypt(NONCE + length.to_bytes(4))
