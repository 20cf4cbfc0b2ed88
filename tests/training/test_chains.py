"""A chain of layers is trained as autograd trains it, through its activations, side by side, and from a state on."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from service.lora.activations import ACTIVATIONS, activated, slope
from service.lora.chain import LoRAChain
from service.lora.init import stream
from service.lora.names import by_layer
from service.lora.spec import Spec
from service.training.lesson import Lesson
from service.training.rows import Rows, keep
from tests import reference
from tests.training.making import gentle, layer_of, learn, plan_for, stacked, targets_for
from tests.training.test_losses import EVERY_LOSS

NAMES = sorted(ACTIVATIONS)
PLAIN = {"identity": lambda u: u, **{name: getattr(functional, name) for name in NAMES if name != "identity"}}


def chain_of(sizes=(5, 7, 4, 3), rank=2, activations=("relu", "tanh"), seed=0, **fields):
    """Layers of these sizes, with normal A and B unless the start is another."""
    specs = [
        Spec(in_features=one, out_features=other, rank=rank, **{"init": "normal", **fields})
        for one, other in pairwise(sizes)
    ]
    layers = [(gentle if spec.init == "normal" else layer_of)(spec, seed + at) for at, spec in enumerate(specs)]
    return LoRAChain(tuple(layers), tuple(activations))


def rows_for(loss, chain, n, seed=0):
    numbers = stream(seed, "test")
    x = torch.randn(n, chain.layers[0].weight.shape[1], generator=numbers)
    return x, targets_for(loss, n, len(chain.layers[-1].weight), numbers)


def outputs(chain, trained, x, drops=None):
    """The outputs by plain PyTorch, each layer by the reference's formula."""
    drops = drops or [None] * len(chain.layers)
    parts = by_layer(trained, len(chain.layers))
    for place, layer in enumerate(chain.layers):
        x = PLAIN[chain.activations[place - 1]](x) if place else x
        x = reference.outputs({**reference.parts(layer), **parts[place]}, layer.scaling, x, drops[place])
    return x


def by_autograd(chain, x, y, plan, batches=None, drops=None):
    """The losses and the trained tensors of the same run in plain PyTorch."""
    trained = {name: tensor.clone().requires_grad_() for name, tensor in chain.trained().items()}
    optimizer = reference.OPTIMIZERS[plan.optimizer](trained.values(), lr=plan.lr)
    losses = []
    for epoch in range(plan.epochs):
        total = 0.0
        for rows in [torch.arange(len(x))] if batches is None else batches[epoch]:
            optimizer.zero_grad()
            error = reference.mean_loss(plan.loss, outputs(chain, trained, x[rows], drops), y[rows])
            error.backward()
            optimizer.step()
            total += error.item() * len(rows)
        losses.append(total / len(x))
    return losses, {name: tensor.detach() for name, tensor in trained.items()}


def must_equal(ours, losses, trained):
    assert ours.losses == pytest.approx(losses, rel=1e-4, abs=1e-6)
    assert ours.fitted.layer.trained().keys() == trained.keys()
    for name, tensor in ours.fitted.layer.trained().items():
        torch.testing.assert_close(tensor, trained[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@given(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=20))
def test_an_activation_and_its_slope_are_pytorchs(name, numbers):
    u = torch.tensor(numbers, requires_grad=True)
    PLAIN[name](u).sum().backward()
    bare = u.detach().numpy()
    assert (activated(name, bare) == PLAIN[name](u).detach().numpy()).all()
    torch.testing.assert_close(torch.from_numpy(slope(name, bare)), u.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activations", [("relu", "tanh"), ("gelu", "silu"), ("identity", "relu")])
@EVERY_LOSS
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_chain_equals_the_loop_of_autograd(loss, activations, optimizer):
    chain = chain_of(activations=activations, train_bias=True)
    x, y = rows_for(loss, chain, 30)
    plan = plan_for(loss, 30, epochs=6, optimizer=optimizer)
    must_equal(learn(Lesson(chain, plan, Rows(x, y))), *by_autograd(chain, x, y, plan))


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("init", ["normal", "kaiming", "pissa", "olora"])
@pytest.mark.parametrize("bias", [False, True])
def test_each_layer_may_have_any_start_and_a_magnitude(init, use_dora, bias):
    chain = chain_of(init=init, use_dora=use_dora, bias=bias)
    x, y = rows_for("mse", chain, 30)
    plan = plan_for("mse", 30, epochs=6, batch_size=8)
    batches = reference.shuffled(30, 8, 6, plan.seed)
    must_equal(learn(Lesson(chain, plan, Rows(x, y))), *by_autograd(chain, x, y, plan, batches))


@pytest.mark.parametrize("use_dora", [False, True])
def test_dropout_is_on_the_adapters_inputs_of_every_layer(use_dora):
    chain = chain_of(use_dora=use_dora, train_bias=True)
    x, y = rows_for("mse", chain, 24)
    plan = plan_for("mse", 24, epochs=5, batch_size=8)
    masks = stream(plan.seed, "dropout")
    # Layer by layer, batch by batch.
    drops = [lambda rows: rows * keep(rows.shape, 0.3, masks)] * 3
    batches = reference.shuffled(24, 8, 5, plan.seed)
    ours = learn(Lesson(chain, plan, Rows(x, y), dropout=0.3))
    must_equal(ours, *by_autograd(chain, x, y, plan, batches, drops))


def lessons(count=3, **chosen):
    chains = [chain_of(seed=10 * seed, use_dora=True) for seed in range(count)]
    plans = [plan_for("mse", 20, epochs=6, lr=0.01 * (1 + seed), seed=seed, **chosen) for seed in range(count)]
    return [
        Lesson(chain, plan, Rows(*rows_for("mse", chain, 20, seed)))
        for seed, (chain, plan) in enumerate(zip(chains, plans, strict=True))
    ]


def same(one, other):
    return all(torch.equal(tensor, other.adapter()[name]) for name, tensor in one.adapter().items())


@pytest.mark.parametrize("chosen", [{}, {"batch_size": 6}])
def test_chains_side_by_side_are_what_they_are_alone(chosen):
    some = lessons(**chosen)
    losses, outcomes = stacked(some)
    for number, lesson in enumerate(some):
        alone = learn(lesson)
        assert losses[number] == alone.losses
        assert same(outcomes[number].layer, alone.fitted.layer)


def test_a_chain_that_goes_on_from_a_state_is_the_chain_that_never_stopped():
    lesson = lessons(1, batch_size=6)[0]
    whole = learn(lesson, keep=True)
    rest = learn(replace(lesson, state=whole.states[3]))
    assert rest.losses == whole.losses[3:]
    assert same(rest.fitted.layer, whole.fitted.layer)


def test_nobody_knows_the_optimum_of_a_chain():
    metrics = learn(lessons(1)[0]).fitted.metrics
    assert (metrics["optimum_loss"], metrics["gap_closed"]) == (None, None)
    assert "chain" in metrics["optimum_unknown"]


@settings(max_examples=30)
@given(st.lists(st.integers(2, 8), min_size=3, max_size=5), st.data())
def test_a_chain_maps_as_its_layers_do_one_after_another(sizes, data):
    activations = data.draw(st.lists(st.sampled_from(NAMES), min_size=len(sizes) - 2, max_size=len(sizes) - 2))
    chain = chain_of(sizes, activations=activations, use_dora=data.draw(st.booleans()))
    x = torch.randn(4, sizes[0], generator=stream(0, "x"))
    torch.testing.assert_close(chain(x), outputs(chain, chain.trained(), x))
    assert same(chain.learned(chain.trained()), chain)
