"""The types of endpoints: where a model runs, in one word."""

from __future__ import annotations

import re

from attrs import field, frozen

from headrace.contracts.errors import LLMInvalidRequestError

_SHORT = {"CPU": "cpu:0", "CUDA": "cuda:0", "OpenVINO": "openvino:CPU"}
_FORMS = {
    "cpu": re.compile(r"\d{1,3}"),
    "cuda": re.compile(r"\d{1,3}"),
    "openvino": re.compile(r"[A-Z][A-Z0-9_.:,-]{0,63}"),
    "remote": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"),
}
_SAID = (
    "cpu:0, cuda:0, openvino:CPU and remote:<backend> (CPU, CUDA and OpenVINO stand for the first "
    "three)"
)


@frozen
class EndpointType:
    """``family`` and ``place``, as in ``cuda:0``; of the family ``remote`` the place is whom to ask."""

    family: str
    place: str
    text: str = field(init=False)

    @text.default
    def _as_it_is_written(self) -> str:
        return f"{self.family}:{self.place}"

    def __str__(self) -> str:
        return self.text


def read_type(text: object) -> EndpointType:
    """The type that ``text`` says; LLMInvalidRequestError where it says none."""
    if isinstance(text, EndpointType):
        return text
    if isinstance(text, str):
        family, _, place = _SHORT.get(text, text).partition(":")
        form = _FORMS.get(family)
        if form is not None and form.fullmatch(place):
            return EndpointType(family, place)
    near = next((name for name in _SHORT if str(text).lower() == name.lower()), None)
    hint = "" if near is None else f"did you mean {near!r}? "
    raise LLMInvalidRequestError(
        f"endpoint type {text!r} is none; {hint}there are {_SAID}", param="endpoint_type"
    )
