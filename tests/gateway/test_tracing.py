"""Traces of what backends ask and are asked."""

from __future__ import annotations

import builtins
import time
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway import tracing
from gateway.config import ConfigError, load
from gateway.server import Gateway
from tests.gateway.test_app import friendly, running
from tests.gateway.test_gateway import Client, connect, url

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def traced(exporter: SpanExporter, **flags: Any) -> Gateway:
    keys = {
        "dev": True,
        "http_server.port": 0,
        "http_api.key": "key",
        "opentelemetry.enabled": True,
        **flags,
    }
    return Gateway(load(flags=keys), span_exporter=exporter)


async def call(gateway: Gateway, method: str, request: Any, **headers: str) -> Any:
    async with aiohttp.ClientSession() as http:
        where = url(gateway, f"/api/{method}", "http")
        async with http.post(where, json=request, headers={"X-API-Key": "key", **headers}) as got:
            return await got.json()


async def test_an_api_request_goes_on_with_the_callers_trace() -> None:
    exporter = InMemorySpanExporter()
    async with traced(exporter) as gateway:
        await call(gateway, "publish", {"channel": "secret", "data": 1}, traceparent=PARENT)
        await call(gateway, "disconnect", {})
    inner, outer, failed, _ = exporter.get_finished_spans()
    assert (inner.name, outer.name) == ("publish", "POST /api/{method}")
    assert outer.kind == SpanKind.SERVER and outer.parent is not None
    assert f"{outer.context.trace_id:032x}" == TRACE == f"{inner.context.trace_id:032x}"
    assert inner.parent is not None and inner.parent.span_id == outer.context.span_id
    assert dict(outer.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/api/{method}",
        "http.response.status_code": 200,
    }
    assert failed.status.status_code == StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "107"
    assert outer.resource.attributes["service.name"] == "fastws-gateway"
    assert outer.resource.attributes["service.instance.id"] == gateway.node.uid
    assert not any("secret" in span.to_json() for span in exporter.get_finished_spans())


async def test_a_call_that_waits_leaves_its_trace_to_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter = InMemorySpanExporter()
    async with traced(exporter) as gateway, Client(await connect(url(gateway))) as client:
        told = await client.ask({"connect": {}})
        async with aiohttp.ClientSession() as http:
            for method, request in (
                ("disconnect", {"client": told["connect"]["client"]}),  # others get their turn
                ("info", {}),
            ):
                where = url(gateway, f"/api/{method}", "http")
                async with http.post(where, json=request, headers={"X-API-Key": "key"}) as got:
                    assert got.status == 200
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert "error.type" not in (spans["disconnect"].attributes or {})
    one, two = spans["disconnect"].context.trace_id, spans["info"].context.trace_id
    assert one != two
    assert "detach" not in caplog.text


async def test_webhooks_take_the_trace_along(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()

    def make(settings: Any, instance: str, given: Any = None) -> Any:
        return original(settings, instance, exporter)

    original = tracing.make_tracing
    monkeypatch.setattr("gateway.server.make_tracing", make)
    keys = {"opentelemetry.enabled": True}
    async with (
        running(friendly, **keys) as (gateway, asked),
        Client(await connect(url(gateway))) as client,
    ):
        await client.ask({"connect": {}})
    [span] = exporter.get_finished_spans()
    assert (span.name, span.kind) == ("POST connect", SpanKind.CLIENT)
    context = span.context
    told = asked[0][2]["traceparent"]
    assert told.startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")


class Stuck(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        time.sleep(2)
        return SpanExportResult.FAILURE


async def test_a_collector_that_does_not_answer_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "_FLUSH_TIMEOUT", 0.05)
    async with traced(Stuck()) as gateway:
        begin = time.monotonic()
        await call(gateway, "info", {})
        await gateway.stop()
        assert time.monotonic() - begin < 1.5


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"needs pip install 'fastws-gateway\[otel\]'"):
        Gateway(load(flags={"opentelemetry.enabled": True}))
