"""OTEL_*: where traces are sent. They are OpenTelemetry's own variables, of which its SDK reads more."""

from __future__ import annotations

from harp.settings import parsers as v
from harp.settings.parsers import shown, web_url
from harp.settings.reader import Fault, Note, Parser, VariableReader

EXAMPLE = "http://127.0.0.1:4318"


def traces(r: VariableReader) -> str:
    """Return the URL that takes OTLP over HTTP; "" = none."""
    base = r.optional("OTEL_EXPORTER_OTLP_ENDPOINT", _url("/v1/traces"), "no traces")
    whole = r.optional("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", _url(""), "/v1/traces of OTEL_EXPORTER_OTLP_ENDPOINT")
    r.read("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", _protocol)
    disabled = r.read("OTEL_SDK_DISABLED", "false", v.boolean)
    return "" if disabled else whole or base or ""


def _url(path: str) -> Parser[str]:
    """Return a collector's URL, and `path` below it."""

    def parse(text: str, note: Note) -> str:
        try:
            return web_url(text, note) + path
        except Fault:
            raise Fault(f"{shown(text)} is not a URL without user name and query; write such as {EXAMPLE}") from None

    return parse


def _protocol(text: str, note: Note) -> str:
    """Return http/protobuf. Platforms that set this for every container may want another; that is not a mistake."""
    if text.lower() != "http/protobuf":
        note(f"{shown(text)} is not supported; traces are sent as http/protobuf, which collectors take on port 4318")
    return "http/protobuf"
