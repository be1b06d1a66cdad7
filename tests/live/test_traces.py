"""Traces as a collector gets them: OTLP over HTTP, decoded with OpenTelemetry's own package."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.live.processes import free_port
from tests.live.product import HARP, Product, basic, running
from tests.live.tunnels import OWN, start_tunnel
from tests.live.world import TUNNEL_PORT, World

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "a key of the collector"
WITHOUT_OPENTELEMETRY = (
    HARP[0],
    "-c",
    "import sys; sys.modules['opentelemetry'] = None; from harp.__main__ import main; sys.exit(main())",
)


class Collector:
    """Takes traces. While `held`, it accepts and answers nothing, as one that hangs."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: dict[str, str] = {}
        self.free = threading.Event()
        self.free.set()
        collector = self

        class TraceHandler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.free.wait(60)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                text = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
                collector.headers = dict(self.headers)
                collector.requests.append(ExportTraceServiceRequest.FromString(text))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), TraceHandler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, Any]:
        return attributes(self.requests[0].resource_spans[0].resource)

    def span_of(self, request_id: str) -> Span | None:
        return next((span for span in self.spans() if attributes(span)["harp.request_id"] == request_id), None)


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        collector.free.set()
        collector.server.shutdown()
        collector.server.server_close()
        thread.join()


def attributes(thing: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in thing.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def environment(collector: Collector, **more: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={SECRET.replace(' ', '%20')}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_BSP_SCHEDULE_DELAY": "100",  # ms
        **more,
    }


def ask(product: Product, path: str, **headers: str) -> tuple[int, str, bytes]:
    """Status, request id and body."""
    connection = http.client.HTTPConnection("127.0.0.1", product.http, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("X-Request-Id", ""), answer.read()
    finally:
        connection.close()


def test_a_request_is_a_span_between_its_client_and_its_exapp(
    world: World, collector: Collector, tmp_path: Path
) -> None:
    with (
        running(tmp_path / "harp", world.nextcloud, **environment(collector, OTEL_SERVICE_NAME="gate")) as product,
        start_tunnel(product, OWN, "hello", TUNNEL_PORT, world.socket) as tunnel,
    ):
        product.secrets.add(SECRET)
        tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        user = basic("user", "user")
        status, request_id, body = ask(
            product, "/exapps/hello/echo/a?token=1", traceparent=PARENT, tracestate="a=b", authorization=user
        )
        assert status == 200
        product.process.until(lambda: collector.span_of(request_id) is not None, "span")
        span = collector.span_of(request_id)
        assert span is not None
        assert span.trace_id.hex() == PARENT[3:35]
        assert span.parent_span_id.hex() == PARENT[36:52]
        sent = {name.lower(): value for name, value in json.loads(body)["headers"]}
        assert sent["traceparent"] == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"
        assert sent["tracestate"] == "a=b"
        assert (span.name, span.kind) == ("GET /exapps/hello", Span.SPAN_KIND_SERVER)
        said = attributes(span)
        assert said["http.response.status_code"] == 200
        assert (said["url.path"], said["harp.app"], said["harp.verdict"]) == (
            "/exapps/hello/echo/a",
            "hello",
            "forward",
        )
        assert said["client.address"] == "127.0.0.1"
        whole = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        assert 0 < said["harp.wait.nextcloud"] <= said["harp.first_byte"] <= whole + 0.001
        assert abs(span.end_time_unix_nano / 1e9 - time.time()) < 60
        assert collector.resource()["service.name"] == "gate"
        assert collector.headers["x-key"] == SECRET
        assert "token=1" not in str(collector.spans())


def test_the_first_byte_of_a_long_answer_is_an_event(world: World, collector: Collector, tmp_path: Path) -> None:
    with running(tmp_path / "harp", world.nextcloud, **environment(collector)) as product:
        _, request_id, _ = ask(product, "/exapps/direct/sse?count=3&interval=0.2")
        product.process.until(lambda: collector.span_of(request_id) is not None, "span")
        span = collector.span_of(request_id)
        assert span is not None
        (event,) = span.events
        assert event.name == "first byte"
        assert span.start_time_unix_nano < event.time_unix_nano <= span.end_time_unix_nano - 300_000_000
        assert collector.resource()["service.name"] == "harp"


def test_errors_refusals_and_odd_parents(world: World, collector: Collector, tmp_path: Path) -> None:
    with running(tmp_path / "harp", world.nextcloud, **environment(collector)) as product:
        product.register("gone", "127.0.0.1", free_port())
        found: dict[str, Span] = {}
        for path, status in (("/exapps/gone/x", 503), ("/exapps/nope/x", 404), ("/exapps/direct/user", 403)):
            got, request_id, _ = ask(product, path, traceparent="00-0-0-01")
            assert got == status
            product.process.until(lambda request_id=request_id: collector.span_of(request_id) is not None, path)  # type: ignore[misc]
            span = collector.span_of(request_id)
            assert span is not None
            found[path] = span
        gone, nope, user = found.values()
        assert gone.status.code == Status.STATUS_CODE_ERROR
        assert "Connection refused" in gone.status.message
        assert nope.status.code == user.status.code == Status.STATUS_CODE_UNSET
        assert (nope.name, user.name) == ("GET", "GET")
        assert {span.parent_span_id for span in found.values()} == {b""}
        assert len({span.trace_id for span in found.values()}) == 3


def test_what_passes_to_nextcloud_is_a_span_too(world: World, collector: Collector, tmp_path: Path) -> None:
    settings = environment(collector, HP_GATEWAY_URL=world.nextcloud)
    with running(tmp_path / "harp", world.nextcloud, **settings) as product:
        _, request_id, _ = ask(product, "/login", traceparent=PARENT)
        product.process.until(lambda: collector.span_of(request_id) is not None, "span")
        span = collector.span_of(request_id)
        assert span is not None
        assert (span.name, attributes(span)["harp.verdict"]) == ("GET", "gateway")
        assert span.trace_id.hex() == PARENT[3:35]


def test_what_the_sampler_leaves_out_says_so_to_the_exapp(world: World, collector: Collector, tmp_path: Path) -> None:
    settings = environment(collector, OTEL_TRACES_SAMPLER="always_off")
    with running(tmp_path / "harp", world.nextcloud, **settings) as product:
        _, _, body = ask(product, "/exapps/direct/echo", authorization=basic("user", "user"))
        sent = {name.lower(): value for name, value in json.loads(body)["headers"]}
        assert int(sent["traceparent"][-2:], 16) & 1 == 0  # not sampled
    assert collector.spans() == []


def test_a_collector_that_hangs_keeps_nobody_waiting_and_is_one_line_in_the_log(
    world: World, collector: Collector, tmp_path: Path
) -> None:
    collector.free.clear()
    settings = environment(collector, OTEL_BSP_MAX_QUEUE_SIZE="64", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8")
    with running(tmp_path / "harp", world.nextcloud, **settings) as product:
        connection = http.client.HTTPConnection("127.0.0.1", product.http, timeout=30)
        for _ in range(2000):  # many more than the queue takes
            connection.request("GET", "/exapps/direct/public")
            assert connection.getresponse().read()
        connection.close()
        lines = product.process.text()
        assert lines.count('"event":"traces not sent"') == 1
        assert "there are more than can be sent" in lines
    # The end has not waited for the collector either: `running` has seen to it.


def test_without_the_extra_harp_runs_and_says_what_is_missing(
    world: World, collector: Collector, tmp_path: Path
) -> None:
    with running(tmp_path / "harp", world.nextcloud, WITHOUT_OPENTELEMETRY, **environment(collector)) as product:
        assert ask(product, "/exapps/direct/public")[0] == 200
        assert "pip install 'appapi-harp[otel]'" in product.process.text()


@pytest.mark.parametrize("setting", [{}, {"OTEL_SDK_DISABLED": "true"}])
def test_nothing_of_it_is_loaded_or_changed_when_it_is_off(
    world: World, collector: Collector, tmp_path: Path, setting: dict[str, str]
) -> None:
    settings = environment(collector, **setting) if setting else {}
    with running(tmp_path / "harp", world.nextcloud, **settings) as product:
        _, _, body = ask(product, "/exapps/direct/echo", traceparent=PARENT, authorization=basic("user", "user"))
        sent = {name.lower(): value for name, value in json.loads(body)["headers"]}
        assert sent["traceparent"] == PARENT
        assert not product.process.has_loaded("google")  # protobuf's native part
    assert collector.spans() == []
