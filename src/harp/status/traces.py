"""Traces for OpenTelemetry: a span for each request, with what it waited for. Loaded only where traces are wanted.

The SDK keeps a bounded queue and sends from a thread of its own: no request and no loop waits for a collector, and what
does not fit is dropped. It reads its own variables (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_BSP_*, ...).
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import cast

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from harp import __version__
from harp.frontend.books import entry_of
from harp.frontend.exchange import Exchange
from harp.logs import RareWarnings
from harp.policy.verdict import Control, Engine, Forward
from harp.wire.requests import RequestHead

PATIENCE = 2.0  # seconds for the last spans, when HaRP stops
LONGEST = 1024  # characters of what a client or an error says
UNNAMED = "unknown_service"  # how the SDK calls a service without OTEL_SERVICE_NAME
METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
NANO = 1e9

_LINES = re.compile(rb"(?im)^(traceparent|tracestate):[ \t]*([^\r\n]*)\r\n")  # header lines of W3C Trace Context
_CONTEXT = TraceContextTextMapPropagator()


class Traces:
    """Makes the spans and has them sent. A span is the child of the client's, and the parent of what the ExApp does."""

    def __init__(self, endpoint: str, warnings: RareWarnings) -> None:
        """`endpoint` takes OTLP over HTTP."""
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith(UNNAMED):
            resource = resource.merge(Resource({SERVICE_NAME: "harp"}))
        resource = resource.merge(Resource({SERVICE_VERSION: __version__}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("harp", __version__)
        self._log = _Failures(warnings, endpoint)
        library = logging.getLogger("opentelemetry")
        library.handlers[:], library.propagate = [self._log], False

    def onward(self, exchange: Exchange, head: RequestHead) -> RequestHead:
        """Begin the span of a request that goes on; its head with the span as the parent of what follows."""
        span = exchange.trace = self._begun(exchange, head)
        carrier: dict[str, str] = {}
        _CONTEXT.inject(carrier, set_span_in_context(span))
        lines = "".join(f"{name}: {value}\r\n" for name, value in carrier.items()).encode("latin-1", "replace")
        return head.with_plain(_LINES.sub(b"", head.plain) + lines)

    def ended(self, exchange: Exchange, seconds: float) -> None:
        """End the span of a request that is over; of one that did not go on, it is made now."""
        head = exchange.head
        if head is None:
            return
        span = cast("Span | None", exchange.trace) or self._begun(exchange, head)
        if not span.is_recording():
            return
        end = time.time_ns()
        entry = entry_of(exchange, seconds)
        span.update_name(_name(exchange, entry.method))
        span.set_attributes(
            {
                "http.request.method": entry.method,
                "http.request.body.size": entry.received,
                "http.response.status_code": entry.status,
                "http.response.body.size": entry.sent,
                "url.path": entry.path[:LONGEST],
                "client.address": entry.address,
                "network.peer.address": entry.peer,
                "harp.app": entry.app,
                "harp.verdict": entry.verdict,
                "harp.reason": entry.reason[:LONGEST],
                "harp.request_id": entry.request_id,
                "harp.first_byte": entry.first_byte or seconds,
                **{f"harp.wait.{what}": waited for what, waited in entry.waits.items()},
            }
        )
        if exchange.began:
            span.add_event("first byte", timestamp=end - int((seconds + exchange.started - exchange.began) * NANO))
        if entry.status >= 500 or entry.status == 0:
            span.set_status(Status(StatusCode.ERROR, entry.reason[:LONGEST]))
        span.end(end)

    async def close(self) -> None:
        """Send what waits, for a moment."""
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.to_thread(self._provider.shutdown)
        except TimeoutError:
            return

    def _begun(self, exchange: Exchange, head: RequestHead) -> Span:
        start = time.time_ns() - int((time.monotonic() - exchange.started) * NANO)
        return self._tracer.start_span("HTTP", _parent(head.plain), kind=SpanKind.SERVER, start_time=start)


def _parent(plain: bytes) -> Context:
    """Return the span that the client's header lines name, if they name one. Several of them name none."""
    said: dict[str, str] = {}
    for name, value in _LINES.findall(plain):
        key, text = name.decode().lower(), value.decode("latin-1").strip()
        said[key] = f"{said[key]},{text}" if key in said else text
    return _CONTEXT.extract(said, Context())


def _name(exchange: Exchange, method: str) -> str:
    """Return the name of a span: few enough of them to be grouped by."""
    verb = method if method in METHODS else "HTTP"
    match exchange.verdict:
        case Forward(record=record):
            return f"{verb} /exapps/{record.app_id}"
        case Control() | Engine():
            return f"{verb} /exapps/app_api"
    return verb


class _Failures(logging.Handler):
    """Tells the log, once in a while, that the SDK could not send. It is called in threads."""

    def __init__(self, warnings: RareWarnings, endpoint: str) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        full = record.getMessage().startswith("Queue full")
        if (full or record.levelno >= logging.ERROR) and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._warn, full, record.getMessage()[:LONGEST])

    def _warn(self, full: bool, text: str) -> None:
        cause = "spans are dropped: there are more than can be sent" if full else "the collector did not take them"
        self._warnings.warning("traces not sent", cause, self._endpoint, detail=text)
