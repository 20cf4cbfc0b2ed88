"""A base is named by its content, and a model is a value of which each change makes the next one."""

from dataclasses import FrozenInstanceError, replace
from datetime import timedelta

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.errors import ShapeMismatch, VersionNotFound
from service.ids import BASE_ID, matches
from service.models.base import Base, content_id
from service.models.versions import FIRST, Mark, Version
from tests.models.layers import NOW, base, model

WEIGHTS = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=4), elements=st.integers(-2, 2))


@settings(max_examples=150)
@given(WEIGHTS, WEIGHTS)
def test_the_same_weights_have_the_same_id_and_others_another(one, other):
    first, second = (content_id(torch.from_numpy(array.copy()), None) for array in (one, other))
    # A zero of either sign: the bytes differ.
    assert (first == second) == (one.shape == other.shape and one.tobytes() == other.tobytes())
    assert matches(BASE_ID, first)


def test_the_id_knows_shape_bias_and_layout():
    weight = torch.arange(16.0).reshape(2, 8)
    ids = [
        content_id(weight, None),
        content_id(weight.reshape(4, 4), None),
        content_id(weight.reshape(8, 2), None),
        content_id(weight, torch.zeros(2)),
        content_id(weight, torch.ones(2)),
        content_id(weight.T, None),
        content_id(weight, None, "float16"),
        content_id(weight, None, "bfloat16"),
    ]
    assert len(set(ids)) == len(ids)
    assert content_id(weight.T.contiguous(), None) == content_id(weight.T, None)


def test_a_base_counts_what_its_tensors_take():
    assert base(3, 4).nbytes == 4 * (12 + 3)
    assert base(3, 4, bias=False).nbytes == 4 * 12


def test_an_adapter_takes_its_sizes_and_bias_from_the_base():
    spec = base(3, 4).spec({"rank": 2, "alpha": 8.0})
    assert (spec.in_features, spec.out_features, spec.rank, spec.scaling, spec.bias) == (4, 3, 2, 4.0, True)
    assert base(3, 4, bias=False).spec({"rank": 1}).bias is False
    assert base(3, 4).spec({"in_features": 4, "out_features": 3, "bias": True, "rank": 3}) == base(3, 4).spec(
        {"rank": 3}
    )


@pytest.mark.parametrize(
    ("field", "value", "detail"),
    [
        ("in_features", 5, "in_features is 5; the base has 4, so leave it out"),
        ("out_features", 4, "out_features is 4; the base has 3, so leave it out"),
        ("bias", False, "bias is false; the base has true, so leave it out"),
    ],
)
def test_a_size_that_the_base_does_not_have_is_refused(field, value, detail):
    with pytest.raises(ShapeMismatch) as refused:
        base(3, 4).spec({"rank": 2, field: value})
    assert refused.value.detail == detail
    assert [(fault.pointer, fault.detail) for fault in refused.value.faults] == [(f"/{field}", detail)]


def test_a_publication_is_the_next_version_and_the_old_one_stays():
    old = model(name="mine", metadata={"a": "b"})
    later = NOW + timedelta(seconds=1)
    version = old.next(later, "training", loss=0.25)
    kept = (*old.kept, version.mark)
    new = replace(old.published(version, kept), adapter={"A": torch.zeros(2, 4), "B": torch.ones(3, 2)})
    assert (old.version, old.last_loss, old.updated_at, old.kept) == (0, None, NOW, (FIRST,))
    assert (new.version, new.last_loss, new.updated_at, new.created_at, new.kept) == (1, 0.25, later, NOW, kept)
    assert (new.id, new.name, new.metadata, new.base, new.spec) == (old.id, "mine", {"a": "b"}, old.base, old.spec)
    assert old.adapter["B"].sum() == 0
    assert new.adapter["B"].sum() == 6


def test_only_a_training_says_which_loss_was_last():
    trained = model().published(model().next(NOW, "training", loss=0.5), ())
    assert (trained.version, trained.last_loss) == (1, 0.5)
    for origin in ("import", "rollback"):
        later = trained.published(trained.next(NOW, origin, loss=0.1), ())
        assert (later.version, later.last_loss) == (2, 0.5)


def test_a_version_is_made_from_the_one_before_unless_it_is_said_otherwise():
    of = replace(model(), version=4)
    assert (of.next(NOW, "training").number, of.next(NOW, "training").parent) == (5, 4)
    assert (of.next(NOW, "rollback", parent=1).number, of.next(NOW, "rollback", parent=1).parent) == (5, 1)
    assert (Version.first(NOW).number, Version.first(NOW).parent) == (0, None)


def test_a_version_that_is_not_kept_is_not_found_and_those_kept_are_listed():
    of = replace(model(), version=400, kept=tuple(Mark(number) for number in (3, *range(200, 401))))
    of.must_keep(3)
    with pytest.raises(VersionNotFound) as refused:
        of.must_keep(4)
    assert refused.value.detail.startswith("model mdl_1 keeps no version 4; it keeps 400, 399, 398")
    assert len(refused.value.detail) < 200


def test_notes_change_neither_version_nor_weights():
    old = model(name="mine", metadata={"a": "b"})
    later = NOW + timedelta(seconds=1)
    new = old.noted(later, name=None)
    assert (new.name, new.metadata, new.version, new.updated_at) == (None, {"a": "b"}, 0, later)
    assert new.adapter is old.adapter
    assert old.noted(later, metadata={}).metadata == {}
    assert (old.name, old.metadata) == ("mine", {"a": "b"})


def test_models_and_bases_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        model().version = 1
    with pytest.raises(FrozenInstanceError):
        base().id = "base_0"


def test_the_layer_of_a_model_computes_with_its_tensors():
    of = model(on=base(3, 4, fill=2.0))
    assert of.layer(torch.ones(1, 4)).tolist() == [[8.0, 8.0, 8.0]]
    other = replace(of, adapter={**of.adapter, "B": torch.ones(3, 2)})
    assert other.layer(torch.ones(1, 4)).tolist() == [[16.0] * 3]


def test_the_adapter_counts_without_the_base():
    assert model(on=base(3, 4)).nbytes == 4 * 2 * (3 + 4)


def test_two_bases_of_the_same_weights_are_one_by_name():
    assert Base.of(torch.ones(2, 2), None).id == Base.of(torch.ones(2, 2), None).id
