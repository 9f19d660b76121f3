"""OpenTelemetry in the gateway: a caller's trace goes on here, and spans and metrics leave the house.

Needs the extra ``otel``; imported only where the configuration asks for it. Where things go is said
in OpenTelemetry's own variables (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.context import attach, detach
from opentelemetry.propagate import extract
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.contracts.errors import LLMInvalidRequestError

_PACKAGE = "opentelemetry-exporter-otlp-proto-http"


def traced(app: ASGIApp) -> ASGIApp:
    """``app``, within the trace that a request's headers name (W3C's ``traceparent``, unless set up
    otherwise)."""

    async def within(scope: Scope, receive: Receive, send: Send) -> None:
        # Where somebody else has instrumented the server, their span is the nearer one.
        if scope["type"] != "http" or trace.get_current_span().get_span_context().is_valid:
            await app(scope, receive, send)
            return
        token = attach(extract(_carrier(scope)))
        try:
            await app(scope, receive, send)
        finally:
            detach(token)

    return within


def _carrier(scope: Scope) -> dict[str, str]:
    carrier: dict[str, str] = {}
    for key, value in scope["headers"]:
        name, text = key.decode("latin-1"), value.decode("latin-1")
        # A traceparent that comes twice is so made invalid, as it should be; a tracestate is not.
        carrier[name] = f"{carrier[name]},{text}" if name in carrier else text
    return carrier


def set_up_sdk(environment: Mapping[str, str] | None = None) -> None:
    """Send spans and metrics where the variables say, unless somebody has set that up already.

    ``OTEL_TRACES_EXPORTER`` and ``OTEL_METRICS_EXPORTER`` are ``otlp`` (unless set), ``console``,
    ``none``, or the name of any other installed exporter. Raises LLMInvalidRequestError for one
    that is not installed.
    """
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    environment = os.environ if environment is None else environment
    spans = _exporters("OTEL_TRACES_EXPORTER", "opentelemetry_traces_exporter", environment)
    measures = _exporters("OTEL_METRICS_EXPORTER", "opentelemetry_metrics_exporter", environment)
    named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create({} if named else {"service.name": "headrace"})
    tracer_provider = TracerProvider(resource=resource)
    for exporter in spans:
        tracer_provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(tracer_provider)
    metrics.set_meter_provider(
        MeterProvider([PeriodicExportingMetricReader(each) for each in measures], resource)
    )


def _exporters(variable: str, group: str, environment: Mapping[str, str]) -> list[Any]:
    """New exporters of the names in ``variable``, the best first."""
    made = []
    named = (environment.get(variable) or "otlp").split(",")
    for name in (each.strip() for each in named):
        if name == "none":
            continue
        point = _installed(name, group, environment.get("OTEL_EXPORTER_OTLP_PROTOCOL"))
        if point is None:
            known = sorted({each.name for each in entry_points(group=group)})
            raise LLMInvalidRequestError(
                f"{variable} is {name!r}, which is not installed; run: pip install {_PACKAGE}, or "
                f"set it to one of {', '.join([*known, 'none'])}",
                param="records.opentelemetry",
            )
        made.append(point.load()())
    return made


def _installed(name: str, group: str, protocol: str | None) -> EntryPoint | None:
    names = [name]
    if name == "otlp":
        by_protocol = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
        names = [by_protocol[protocol]] if protocol in by_protocol else [*by_protocol.values()]
    for each in names:
        for point in entry_points(group=group, name=each):
            return point
    return None
