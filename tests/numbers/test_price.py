"""What calls cost, to the last digit."""

from __future__ import annotations

import decimal
from datetime import date, datetime, timezone
from decimal import Decimal
from fractions import Fraction

import pytest
from attrs import evolve, fields
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.convert import from_json, to_json
from headrace.contracts.responses import Usage
from headrace.numbers.price import (
    Rates,
    TokenRates,
    context_window,
    listed_models,
    price,
    price_of_call,
    rates_of,
)

DAY = date(2026, 11, 1)
FLAT = TokenRates(
    input_uncached=Decimal("2.5"),
    input_cache_read=Decimal("1.25"),
    input_cache_write=Decimal("3.125"),
    output_text=Decimal("10"),
    output_reasoning=Decimal("12"),
)
KINDS = [each.name for each in fields(TokenRates) if each.name != "above_input_tokens"]


def rates(*steps: TokenRates) -> Rates:
    return Rates(steps=steps, source="a list", model="m", on=DAY.isoformat())


def test_each_kind_of_token_has_its_rate():
    usage = Usage(
        prompt_tokens=1111,
        completion_tokens=11,
        input_cache_read_tokens=100,
        input_cache_write_tokens=1000,
        output_reasoning_tokens=10,
    )
    cost = 11 * Fraction("2.5") + 100 * Fraction("1.25") + 1000 * Fraction("3.125") + 10 + 120
    assert Fraction(price(usage, rates(FLAT))) == cost / 1_000_000  # type: ignore[arg-type]


@given(
    counts=st.lists(st.integers(0, 10**12), min_size=5, max_size=5),
    listed=st.lists(st.decimals(0, 1000, places=9), min_size=5, max_size=5),
)
def test_a_price_is_exact_whatever_the_callers_arithmetic(counts, listed):
    uncached, read, write, text, reasoning = counts
    usage = Usage(
        input_uncached_tokens=uncached,
        input_cache_read_tokens=read,
        input_cache_write_tokens=write,
        output_text_tokens=text,
        output_reasoning_tokens=reasoning,
    )
    table = rates(TokenRates(**dict(zip(KINDS, listed, strict=True))))
    with decimal.localcontext(prec=3):
        cost = price(usage, table)
    exact = sum(Fraction(n) * Fraction(r) for n, r in zip(counts, listed, strict=True))
    assert Fraction(cost) == exact / 1_000_000  # type: ignore[arg-type]


def test_parts_that_nobody_told_apart_are_plain_input_and_text():
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=1_000_000)
    assert price(usage, rates(FLAT)) == Decimal("12.5")


def test_a_count_that_follows_from_the_others_is_found():
    assert price(Usage(prompt_tokens=10, total_tokens=10), rates(FLAT)) == Decimal("0.000025")


@pytest.mark.parametrize(
    "usage",
    [
        None,
        Usage(),
        Usage(prompt_tokens=3),
        Usage(completion_tokens=3),
        Usage(input_cache_read_tokens=3, completion_tokens=3),
    ],
)
def test_unknown_usage_has_no_price(usage):
    assert price(usage, rates(FLAT)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_that_is_missing_leaves_no_price_where_it_is_needed(kind):
    usage = Usage(**{f"{kind}_tokens": 7 for kind in KINDS})
    holed = rates(evolve(FLAT, **{kind: None}))
    assert price(usage, rates(FLAT)) is not None
    assert price(usage, holed) is None
    assert price(evolve(usage, **{f"{kind}_tokens": 0}), holed) is not None


def test_no_rates_are_no_price_not_a_price_of_nothing():
    assert price(Usage(prompt_tokens=1, completion_tokens=1), None) is None


def test_no_tokens_cost_nothing():
    assert price(Usage(prompt_tokens=0, completion_tokens=0), rates(FLAT)) == 0


def test_beyond_a_number_of_input_tokens_all_of_them_cost_the_other_rate():
    dear = evolve(FLAT, above_input_tokens=200_000, input_uncached=Decimal(5))
    stepped = rates(FLAT, dear)
    at = [Usage(prompt_tokens=n, completion_tokens=0) for n in (200_000, 200_001)]
    assert price(at[0], stepped) == Decimal("0.5")
    assert price(at[1], stepped) == Decimal("1.000005")


@pytest.mark.parametrize(
    ("provider", "model"),
    [(None, "gpt-4o"), ("openai", None), ("openai", "gpt-of-ones-own"), ("vllm", "gpt-4o")],
)
def test_what_nobody_published_is_unknown(provider, model):
    assert rates_of(provider, model, DAY) is None
    assert context_window(provider, model) is None


def test_published_rates_are_read_once_and_say_where_they_are_from():
    found = rates_of("openai", "gpt-4o-2024-08-06", DAY)
    assert found is not None
    assert found.source.startswith("genai-prices ")
    assert (found.model, found.on) == ("gpt-4o", "2026-11-01")
    assert found.steps[0].input_uncached == Decimal("2.5")
    assert found.steps[0].output_reasoning == Decimal("10")
    assert rates_of("openai", "gpt-4o-2024-08-06", DAY) is found
    assert context_window("openai", "gpt-4o") == 128_000
    assert "gpt-4o" in listed_models("openai")
    assert listed_models(None) == listed_models("nobody") == ()


def test_a_call_is_priced_by_the_first_of_its_names_that_has_a_price():
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=0)
    wall_s = datetime(2026, 11, 1, 12, tzinfo=timezone.utc).timestamp()
    assert price_of_call("openai", ("my-alias", None, "gpt-4o"), usage, wall_s) == Decimal("2.5")
    assert price_of_call("openai", ("my-alias",), usage, wall_s) is None
    assert price_of_call(None, ("gpt-4o",), usage, wall_s) is None
    assert price_of_call("openai", ("gpt-4o",), None, wall_s) is None


def test_rates_survive_being_written_and_read():
    found = rates_of("openai", "gpt-5.5", DAY)
    assert found is not None
    assert len(found.steps) == 2
    assert from_json(to_json(found), Rates) == found


def test_a_rate_of_some_hours_holds_within_them():
    found = rates_of("deepseek", "deepseek-chat", DAY)
    assert found is not None
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=0)
    prices = {price(usage, found, datetime(2026, 11, 1, h, tzinfo=timezone.utc)) for h in range(24)}
    assert len(prices) == 2
    assert price(usage, found) in prices


PROVIDERS = ("openai", "anthropic", "google", "groq", "mistral", "deepseek", "together", "x-ai")


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("prompt", [1_000, 300_000])
def test_our_price_is_that_of_the_library_whose_data_it_is(provider, prompt):
    from genai_prices import Usage as TheirUsage
    from genai_prices.data import providers

    at = datetime(2026, 11, 1, 5, 30, tzinfo=timezone.utc)
    usage = Usage(prompt_tokens=prompt, input_cache_read_tokens=100, completion_tokens=1000)
    theirs = TheirUsage(input_tokens=prompt, cache_read_tokens=100, output_tokens=1000)
    listed = next(each for each in providers if each.id == provider)
    compared = 0
    for model in listed.models:
        ours = price(usage, rates_of(provider, model.id, DAY), at)
        if ours is not None and listed.find_model(model.id) is model:
            calculated = model.calc_price(theirs, listed, genai_request_timestamp=at)
            assert ours == calculated.total_price, model.id
            compared += 1
    assert compared >= 5


def _models_of(provider: str) -> list[tuple[str, bool]]:
    """The models whose rates we know, and whether the data has rates of batches for them."""
    from genai_prices.data import providers

    (found,) = (each for each in providers if each.id == provider)
    known = [each for each in found.models if rates_of(provider, each.id, DAY) is not None]
    return [
        (each.id, any(v.when == {"processing": "batch"} for v in each.price_variants or ()))
        for each in known
    ]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "mistral"])
def test_a_request_of_a_batch_costs_half(provider):
    usage = Usage(prompt_tokens=1000, completion_tokens=100)
    noon = datetime(2026, 11, 1, 12, tzinfo=timezone.utc).timestamp()
    seen = 0
    for model, _ in _models_of(provider):
        usual = price_of_call(provider, [model], usage, noon)
        ours = price_of_call(provider, [model], usage, noon, batch=True)
        if usual:
            assert ours == usual / 2, model
            seen += 1
    assert seen


def test_the_published_rates_of_batches_are_taken_where_there_are_any():
    from genai_prices import Usage as TheirUsage
    from genai_prices import calc_price

    at = datetime(2026, 11, 1, 12, tzinfo=timezone.utc)
    model = next(name for name, has_own in _models_of("anthropic") if has_own)
    theirs = calc_price(
        TheirUsage(input_tokens=1000, output_tokens=100),
        model,
        provider_id="anthropic",
        genai_request_timestamp=at,
        price_context={"processing": "batch"},
    )
    usage = Usage(prompt_tokens=1000, completion_tokens=100)
    ours = price_of_call("anthropic", [model], usage, at.timestamp(), batch=True)
    assert ours == theirs.total_price
