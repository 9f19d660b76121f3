"""Validators of the configuration's fields: what is wrong, and which values would be right."""

from __future__ import annotations

from typing import Any

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.net.proxy import check_proxy
from headrace.net.transport import as_http, parse_url


def at_least(least: float) -> Any:
    """A number, or nothing."""

    def check(_: object, attribute: Any, value: float | None) -> None:
        if value is not None and value < least:
            raise ValueError(f"{value}, must be at least {least:g}", attribute)

    return check


def between(least: float, most: float) -> Any:
    """A number, or nothing."""

    def check(_: object, attribute: Any, value: float | None) -> None:
        if value is not None and not least <= value <= most:
            raise ValueError(f"{value}, must be {least:g} to {most:g}", attribute)

    return check


def proxy(_: object, attribute: Any, value: str | None) -> None:
    """An HTTP proxy's address, ``environment``, or nothing."""
    try:
        check_proxy(value)
    except LLMInvalidRequestError as error:
        raise ValueError(str(error).removeprefix("proxy is "), attribute) from error


def url(_: object, attribute: Any, value: str | None) -> None:
    """An address that the transport can reach, or nothing."""
    if value is not None:
        try:
            parse_url(value)
        except LLMInvalidRequestError as error:
            raise ValueError(str(error), attribute) from error


def base_url(_: object, attribute: Any, value: str | None) -> None:
    """As ``url``; or one of gRPC's."""
    url(_, attribute, None if value is None else as_http(value))
