"""One trace through real processes, received over OTLP as a collector would."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE = "0af7651916cd43dd8448eb211c80319c"
SCANNERS = "b7ad6b7169203331"

pytestmark = pytest.mark.full


class Collector:
    """Keeps the spans that are posted to it: (process id, span)."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        keep = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                keep.take(self.path, body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            self.services |= {
                item.value.string_value
                for item in resource.resource.attributes
                if item.key == "service.name"
            }
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_one_trace_leads_from_the_scanner_through_three_processes_to_the_webhook(
    service: Any, scans: list[bytes], collector: Collector
) -> None:
    port = collector.server.server_port
    service.environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    service.start()
    service.subscribe()
    service.publish({"data": scans[0], "traceparent": f"00-{TRACE}-{SCANNERS}-01"})
    service.wait(lambda: service.settled(1))
    service.supervisor.stop()  # what was not sent yet is sent now
    names = {span.name for span in collector.spans}
    assert names >= {
        "record scan.completed",
        "render pdf",
        "render html",
        "render json",
        "render csv",
        "finish",
        "deliver webhook",
    }
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    (record,) = [span for span in collector.spans if span.name == "record scan.completed"]
    assert record.parent_span_id.hex() == SCANNERS
    others = [span for span in collector.spans if span is not record]
    assert {span.parent_span_id for span in others} == {record.span_id}
    assert collector.services == {"scanherald"}
    delivered = {span.span_id.hex() for span in collector.spans if span.name == "deliver webhook"}
    sent = [request.headers["traceparent"] for request in service.sink.requests]
    assert {header.split("-")[2] for header in sent} == delivered
    assert {header.split("-")[1] for header in sent} == {TRACE}


def test_a_collector_that_is_away_holds_up_nothing(service: Any, scans: list[bytes]) -> None:
    service.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:1"
    service.start()
    service.publish({"data": scans[0]})
    service.wait(lambda: service.settled(1))
    (run,) = service.runs()
    assert run["state"] == "done"
