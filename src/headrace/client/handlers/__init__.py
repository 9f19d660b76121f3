"""Endpoint handlers: a model by where it runs, as something to call."""

from headrace.client.handlers.handler import (
    EndpointHandlers,
    Handler,
    endpoint_handler,
    register_endpoint,
    unregister_endpoint,
)

__all__ = [
    "EndpointHandlers",
    "Handler",
    "endpoint_handler",
    "register_endpoint",
    "unregister_endpoint",
]
