"""Traces of what backends ask and are asked, by OpenTelemetry where that is installed and wanted.

Spans are for HTTP API requests, the calls in them, and webhooks; the context goes along in W3C
``traceparent`` in both directions. Names and attributes are those of the semantic conventions for
HTTP. What clients send and get has no spans: it is too much, and their payloads are nobody's
business.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.config import ConfigError, OpenTelemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

# Seconds that the last spans may take to leave at a stop.
_FLUSH_TIMEOUT = 5.0


class Span:
    """Something that takes time; this one is not recorded."""

    def set(self, name: str, value: str | int) -> None:
        """Add an attribute."""

    def fail(self, reason: str) -> None:
        """It has not come to a good end."""


_NO_SPAN = contextlib.nullcontext(Span())


class Tracing:
    """No tracing: what everything is until `make_tracing` says otherwise."""

    records = False

    def serve(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
        """Around a request that came with these headers (names in lower case)."""
        return _NO_SPAN

    def call(self, name: str) -> AbstractContextManager[Span]:
        """Around a part of it."""
        return _NO_SPAN

    def ask(
        self, name: str, headers: MutableMapping[str, str]
    ) -> AbstractContextManager[Span]:
        """Around a request of ours, whose headers get the context."""
        return _NO_SPAN

    async def close(self) -> None:
        """Send what is left, within 5 s."""


def make_tracing(
    settings: OpenTelemetry, instance: str, exporter: SpanExporter | None = None
) -> Tracing:
    """Tracing as configured; ``instance`` tells processes apart.

    Without ``exporter`` spans go over OTLP/HTTP, to where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says; the
    other ``OTEL_…`` variables of the SDK count too. Raises `ConfigError` if it is not installed.
    """
    if not settings.enabled:
        return Tracing()
    try:
        return _OpenTelemetry(instance, exporter)
    except ImportError as error:
        raise ConfigError(
            f"opentelemetry.enabled needs pip install 'fastws-gateway[otel]': {error}"
        ) from None


class _RecordedSpan(Span):
    def __init__(self, span: Any) -> None:
        self._span = span

    def set(self, name: str, value: str | int) -> None:
        self._span.set_attribute(name, value)

    def fail(self, reason: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR, reason)
        self._span.set_attribute("error.type", reason)


class _OpenTelemetry(Tracing):
    """Spans by the SDK, in a provider of our own: nothing global is touched."""

    records = True

    def __init__(self, instance: str, exporter: SpanExporter | None) -> None:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
        ours = {
            "service.name": "fastws-gateway",
            "service.version": __version__,
            "service.instance.id": instance,
        }
        # What the environment says of the service goes before what we do.
        resource = Resource.create(ours).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("gateway", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._kinds = SpanKind

    @contextlib.contextmanager
    def _span(self, name: str, kind: Any, context: Any = None) -> Any:
        # The text of an exception may have a client's data in it.
        with self._tracer.start_as_current_span(
            name, context, kind, record_exception=False, set_status_on_exception=False
        ) as span:
            recorded = _RecordedSpan(span)
            try:
                yield recorded
            except Exception as error:
                recorded.fail(type(error).__qualname__)
                raise

    def serve(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
        return self._span(name, self._kinds.SERVER, self._propagator.extract(headers))

    def call(self, name: str) -> AbstractContextManager[Span]:
        return self._span(name, self._kinds.INTERNAL)

    @contextlib.contextmanager
    def ask(self, name: str, headers: MutableMapping[str, str]) -> Any:
        with self._span(name, self._kinds.CLIENT) as span:
            self._propagator.inject(headers)
            yield span

    async def close(self) -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shutdown() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop did not wait, and is closed
                loop.call_soon_threadsafe(done.set)

        # A daemon: a collector that does not answer must not hold the process up.
        threading.Thread(target=shutdown, daemon=True, name="fastws-tracing").start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), _FLUSH_TIMEOUT)
