"""Classes that are made in half the time are what they would be otherwise."""

import copy
import inspect
import pickle

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.messages import LLMMessage
from headrace.contracts.quick import changed, quick_init
from headrace.contracts.record import Attempt, CallRecord, Timeline
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import (
    LLMChoice,
    LLMDelta,
    LLMResponse,
    LLMStreamEvent,
    Provenance,
    Usage,
)
from headrace.contracts.routing import RouteCandidate, RouteDecision
from headrace.traffic.call import CallSheet

from .values import contracts_of

QUICK = [
    *(LLMMessage, LLMRequest, LLMChoice, LLMDelta, LLMResponse, LLMStreamEvent, Provenance, Usage),
    *(Attempt, CallRecord, CallSheet, Timeline, RouteCandidate, RouteDecision),
]
each = pytest.mark.parametrize("kind", QUICK, ids=lambda kind: kind.__name__)


def as_attrs_makes_it(kind):
    """The same fields in a class that was left as attrs makes it."""
    fields = {
        f.name: attrs.field(default=f.default, repr=f.repr, eq=f.eq) for f in attrs.fields(kind)
    }
    return attrs.make_class(kind.__name__, fields, frozen=True, slots=True, kw_only=True)


@each
def test_it_holds_what_it_was_given_and_the_same_defaults(kind):
    usual = as_attrs_makes_it(kind)
    needed = {f.name: object() for f in attrs.fields(kind) if f.default is attrs.NOTHING}
    every = {f.name: object() for f in attrs.fields(kind)}
    for given_ in (needed, every):
        made, other = kind(**given_), usual(**given_)
        assert type(made) is kind
        for name in every:
            assert getattr(made, name) == getattr(other, name)


@each
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_it_is_frozen_and_can_be_copied_changed_and_pickled(kind, data):
    made = data.draw(contracts_of(kind))
    name = attrs.fields(kind)[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(made, name, None)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        delattr(made, name)
    for same in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert (type(same), same) == (kind, made)
    for other in (attrs.evolve(made, **{name: None}), changed(made, **{name: None})):
        assert (type(other), getattr(other, name)) == (kind, None)
        assert attrs.evolve(other, **{name: getattr(made, name)}) == made
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(other, name, None)


@each
def test_what_is_missing_or_unknown_is_named(kind):
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'no_such_field'"):
        kind(no_such_field=1)
    if any(f.default is attrs.NOTHING for f in attrs.fields(kind)):
        with pytest.raises(TypeError, match=r"missing \d+ required keyword-only argument"):
            kind()


def test_each_object_has_a_new_value_where_its_default_is_made():
    one, other = LLMRequest(messages=()), LLMRequest(messages=())
    assert one.metadata == {}
    assert one.metadata is not other.metadata


def test_an_object_of_a_subclass_is_one():
    class Noted(Usage):
        """With a dict, so of another layout."""

    noted = Noted(prompt_tokens=3)
    assert (type(noted), noted.prompt_tokens, noted.total_tokens) == (Noted, 3, None)


def test_a_class_that_does_more_than_to_store_its_fields_is_refused():
    @attrs.frozen(kw_only=True)
    class Checked:
        size: int = attrs.field(validator=attrs.validators.gt(0))

    with pytest.raises(TypeError, match=r"Checked\.size is more than a keyword that is stored"):
        quick_init(Checked)


@each
def test_its_signature_is_the_one_that_attrs_gives(kind):
    usual = inspect.signature(as_attrs_makes_it(kind)).parameters.values()
    made = inspect.signature(kind).parameters.values()
    assert [(p.name, p.kind, p.default) for p in made] == [
        (p.name, p.kind, p.default) for p in usual
    ]


def test_a_field_that_is_not_there_cannot_be_changed():
    with pytest.raises(TypeError, match="Usage has no field 'tokens'"):
        changed(Usage(), tokens=1)
