"""OpenTelemetry with exporters in memory, and our sink that fills them."""

from __future__ import annotations

from typing import Any

from headrace.traffic.otel import OpenTelemetrySink


class Telemetry:
    """OpenTelemetry with exporters in memory."""

    def __init__(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.sink = OpenTelemetrySink(
            tracer_provider=self.tracers,
            meter_provider=MeterProvider(metric_readers=[self.reader]),
        )

    @property
    def spans(self) -> Any:
        return self.exporter.get_finished_spans()

    @property
    def points(self) -> dict[str, list[Any]]:
        data: Any = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
