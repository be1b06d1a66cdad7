"""Keys of the control connection: the vectors of F 9."""

from __future__ import annotations

import pytest

from harp.wire.frp_crypto import control_key, control_keys, privilege_key, transcript
from tests.wire.test_frp import CLIENT_HELLO, SERVER_HELLO

TRANSCRIPT = "5ccf90b805bdc0b770f583b4244b2512db50418790b323924394ec5014df66a0"


@pytest.mark.parametrize(
    ("token", "key"),
    [
        ("", "cdc9dc4c472c37331281df4c232a8407"),
        ("secret", "8a69215e54aca50e54f738de611a87f9"),
        ("12345678", "b7eac3f66310824c114f56f8274fdfea"),
    ],
)
def test_the_version_1_key_comes_from_the_token(token: str, key: str) -> None:
    assert control_key(token).hex() == key


@pytest.mark.parametrize(
    ("token", "timestamp", "key"),
    [
        ("", 1700000000, "24920decf83f6960b80f737a28eeafc1"),
        ("", 0, "cfcd208495d565ef66e7dff9f98764da"),
        ("secret", 1700000000, "e37729af62f40f134311cffbc230178e"),
    ],
)
def test_the_privilege_key_is_md5_of_token_and_timestamp(token: str, timestamp: int, key: str) -> None:
    assert privilege_key(token, timestamp) == key


@pytest.mark.parametrize(
    ("token", "client", "server"),
    [
        (
            "",
            "367937cf3c478c0e303d780a63b81844b2aa49b9899caf93b32ce79a0044a704",
            "ad14cde1bb8c0ece6e47aa087439e6e93739da7e37fd2423d6b9306243b0894f",
        ),
        (
            "secret",
            "f7972ec5a55c6aabed981c3cf493ac53a875f9b0d1af2c25787f64c8e4363685",
            "319c2865e44b890b9f37f00f645bcb65878e61649615913e91deff50bc3d1c6d",
        ),
    ],
)
def test_the_version_2_keys_come_from_both_hellos_and_the_token(token: str, client: str, server: str) -> None:
    digest = transcript(CLIENT_HELLO, SERVER_HELLO)
    assert digest.hex() == TRANSCRIPT
    assert [key.hex() for key in control_keys(token, digest)] == [client, server]
