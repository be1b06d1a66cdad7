"""The one text of what the system refuses."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from harp.errors import words_of


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/certs/frp"), "No such file or directory"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.1', 80)"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (TimeoutError(), "timed out"),
        (TimeoutError(errno.ETIMEDOUT, ""), "Connection timed out"),
        (ConnectionResetError("closed\nby the peer"), "closed"),
        (OSError("x" * 200), "x" * 80),
        (ConnectionAbortedError(), "ConnectionAbortedError"),
    ],
)
def test_an_error_of_the_system_is_one_short_line_without_addresses_and_numbers(error: OSError, words: str) -> None:
    assert words_of(error) == words


def test_an_untrusted_certificate_is_named_as_such() -> None:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] ...")
    error.verify_message = "self-signed certificate"
    assert words_of(error) == "the certificate is not trusted: self-signed certificate"


def test_a_failure_of_tls_is_told_in_its_own_words() -> None:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1000)")
    assert words_of(error) == "TLS failed: no reason given"
    error.reason = "WRONG_VERSION_NUMBER"
    assert words_of(error) == "TLS failed: wrong version number"
