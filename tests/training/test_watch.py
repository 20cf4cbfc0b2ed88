"""Early stopping publishes the best epoch's weights and stops when that has been best for long enough."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.training.plan import EarlyStopping
from service.training.rows import Rows
from service.training.watch import Watch
from tests.training.making import SMALL, gentle, loss_of, plan_for, rows_for, run
from tests.training.test_optimizers import EVERY_BACKEND

PATHS = pytest.mark.parametrize("mode", [{"path": "moments"}, {}, {"batch_size": 7}])


@pytest.mark.parametrize("backend", EVERY_BACKEND)
@settings(max_examples=30)
@given(
    st.lists(st.lists(st.floats(0, 10), min_size=3, max_size=3), min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.5]),
)
def test_the_best_is_the_last_that_was_better_by_enough(backend, epochs, patience, min_delta):
    watch = Watch(backend, backend.zeros(3, 2, dtype="float64"), EarlyStopping(patience=patience, min_delta=min_delta))
    best, since, at = [np.inf] * 3, [0] * 3, [0] * 3
    for number, losses in enumerate(epochs, 1):
        parameters = backend.of(np.full((3, 2), number), "float64")
        over = watch.see(number, np.array(losses), parameters)
        for which, loss in enumerate(losses):
            better = loss < best[which] - min_delta
            best[which], at[which] = (loss, number) if better else (best[which], at[which])
            since[which] = 0 if better else since[which] + 1
        assert over.tolist() == [waited >= patience for waited in since]
        assert watch.best_loss.tolist() == best
        assert backend.cpu(watch.best)[:, 0].tolist() == watch.best_epoch.tolist() == at


def test_what_is_known_of_a_run_goes_on_in_another_watch():
    backend, settings_ = EVERY_BACKEND[0], EarlyStopping(patience=3)
    one, other = (Watch(backend, np.zeros((2, 4)), settings_) for _ in range(2))
    one.see(1, np.array([1.0, 2.0]), np.ones((2, 4)))
    one.see(2, np.array([3.0, 1.0]), np.ones((2, 4)))
    other.resume(0, one.facts(1))
    assert other.facts(0) == one.facts(1) == {"best_loss": 1.0, "best_epoch": 2.0, "waited": 0.0}
    assert other.facts(1) == {"best_loss": np.inf, "best_epoch": 0.0, "waited": 0.0}


@PATHS
@settings(max_examples=8)
@given(seed=st.integers(0, 1_000), patience=st.integers(1, 4), lr=st.sampled_from([0.01, 0.3]))
def test_the_layer_that_is_published_is_that_of_the_epoch_that_validated_best(mode, seed, patience, lr):
    layer = gentle(SMALL, seed)
    x, y = rows_for("mse", layer, 20, seed)
    held_out = Rows(*rows_for("mse", layer, 9, seed + 1))
    stopping = EarlyStopping(patience=patience)
    ours = run(layer, x, y, plan_for("mse", 20, epochs=30, lr=lr, early_stopping=stopping, **mode), validation=held_out)
    told, metrics = ours.curve("validation_losses"), ours.fitted.metrics
    best = int(np.argmin(told))
    assert metrics["best_epoch"] == best + 1
    assert len(told) == min(30, best + 1 + patience)
    assert metrics["validation_loss"] == pytest.approx(told[best], rel=1e-5)
    assert metrics["validation_loss"] == pytest.approx(
        loss_of(ours.fitted.layer, held_out.x, held_out.y, "mse"), rel=1e-4
    )
    assert metrics["final_loss"] == pytest.approx(loss_of(ours.fitted.layer, x, y, "mse"), rel=1e-4)
    shorter = run(layer, x, y, plan_for("mse", 20, epochs=best + 1, lr=lr, **mode)).fitted.layer
    for name, tensor in ours.fitted.layer.adapter().items():
        assert torch.equal(tensor, shorter.adapter()[name])


@pytest.mark.parametrize("path", ["moments", "batch"])
@pytest.mark.parametrize("lr", [0.05, 1.5])
def test_without_validation_an_epoch_stands_for_the_weights_that_its_loss_belongs_to(path, lr):
    layer = gentle(SMALL)
    x, y = rows_for("mse", layer, 20)
    plan = plan_for("mse", 20, epochs=40, lr=lr, path=path, early_stopping=EarlyStopping(patience=4))
    ours = run(layer, x, y, plan)
    told, metrics = ours.losses, ours.fitted.metrics
    # The loss of epoch k is that of the weights after k - 1 epochs; those after the last one are looked at too.
    assert metrics["final_loss"] <= min(told) * (1 + 1e-5)
    after = run(layer, x, y, plan_for("mse", 20, epochs=len(told), lr=lr, path=path)).fitted.metrics["final_loss"]
    all_of_them = [*told, after]
    assert metrics["best_epoch"] == int(np.argmin(all_of_them))
    assert metrics["final_loss"] == pytest.approx(min(all_of_them), rel=1e-5)
    assert metrics["final_loss"] == pytest.approx(loss_of(ours.fitted.layer, x, y, "mse"), rel=1e-4)


@PATHS
def test_a_run_that_never_gets_better_by_enough_stops_after_its_patience(mode):
    layer = gentle(SMALL)
    x, y = rows_for("mse", layer, 20)
    stopping = EarlyStopping(patience=3, min_delta=100.0)
    ours = run(layer, x, y, plan_for("mse", 20, epochs=50, early_stopping=stopping, **mode))
    assert len(ours.losses) == 4


@pytest.mark.parametrize("seed", range(6))
def test_with_dropout_the_last_weights_are_not_measured_by_another_rule(seed):
    layer = gentle(SMALL, seed)
    x, y = rows_for("mse", layer, 12, seed)
    stopping = EarlyStopping(patience=50)
    ours = run(layer, x, y, plan_for("mse", 12, epochs=25, lr=0.3, early_stopping=stopping), dropout=0.5)
    assert ours.fitted.metrics["best_epoch"] == int(np.argmin(ours.losses))


def test_the_last_look_must_be_better_by_enough_too():
    layer = gentle(SMALL)
    x, y = rows_for("mse", layer, 20)
    stopping = EarlyStopping(patience=50, min_delta=100)
    ours = run(layer, x, y, plan_for("mse", 20, epochs=6, path="moments", early_stopping=stopping))
    assert ours.fitted.metrics["best_epoch"] == 0
