"""Where traces are sent."""

from __future__ import annotations

import pytest

from tests.settings.reading import problem, settings, warning

BASE, WHOLE = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


def test_traces_go_below_the_collectors_url_or_to_the_url_that_is_given_for_them() -> None:
    assert settings().traces == ""
    assert settings(**{BASE: "http://collector:4318"}).traces == "http://collector:4318/v1/traces"
    assert settings(**{BASE: "https://a.example/otlp/"}).traces == "https://a.example/otlp/v1/traces"
    assert settings(**{BASE: "http://collector:4318", WHOLE: "http://other/x"}).traces == "http://other/x"
    assert settings(**{BASE: "http://collector:4318", "OTEL_SDK_DISABLED": "true"}).traces == ""


@pytest.mark.parametrize("text", ["collector:4318", "grpc://collector", "http://key@collector:4318", "http://a/?b=c"])
def test_a_collectors_url_is_no_more_than_that(text: str) -> None:
    assert "write such as http://127.0.0.1:4318" in problem(**{BASE: text})


def test_another_protocol_is_warned_of() -> None:
    assert "port 4318" in warning(**{BASE: "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
