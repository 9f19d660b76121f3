"""extract.yaml in Python: the shape of an answer is a class, and functions of yours join in."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

import headrace
from headrace.chains import Apply, Chain, Step

headrace.register_engine(
    name="small",
    backend="openai-compatible",
    model="smollm2-135m-instruct",
    endpoint="http://127.0.0.1:8000/v1",
)


class Order(Struct):
    """What a message orders."""

    product: Annotated[str, Meta(max_length=30)]
    count: Annotated[int, Meta(ge=1, le=99)]
    urgent: bool


def as_a_line(order: Order) -> dict[str, object]:
    """An order as the warehouse wants it."""
    return {"line": f"{order.count} x {order.product}", "queue": "now" if order.urgent else "soon"}


chain = Chain(
    Step(
        id="order",
        engine="small",
        system="You fill in forms. Say nothing that is not in the message.",
        user="Message: {{ text }}\nWhich product is ordered, how many of it, and is it urgent?",
        output=Order,
        sampling=headrace.LLMChatParams(temperature=0, max_tokens=60),
    )
    >> Apply(id="line", function=as_a_line, input=Order),
    name="extract",
)
