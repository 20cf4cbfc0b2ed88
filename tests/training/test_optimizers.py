"""The three optimizers take the steps of torch.optim."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lora.init import stream
from service.training.optimizers import OPTIMIZERS
from service.training.plan import OPTIMIZER_DEFAULTS, OptimizerName, Plan
from tests import reference

SETTINGS = [
    ("adam", {}),
    ("adam", {"weight_decay": 0.1}),
    ("adam", {"betas": (0.5, 0.9)}),
    ("adam", {"betas": (0.0, 0.0), "eps": 1e-3}),
    ("adam", {"betas": (0.9, 0.9999), "eps": 1e-4, "weight_decay": 0.01}),
    ("adamw", {}),
    ("adamw", {"weight_decay": 0.0}),
    ("adamw", {"weight_decay": 0.5, "betas": (0.8, 0.99), "eps": 1e-6}),
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"weight_decay": 0.1}),
    ("sgd", {"momentum": 0.5, "weight_decay": 0.05}),
]
EVERY_SETTING = pytest.mark.parametrize(("optimizer", "chosen"), SETTINGS)
close = torch.testing.assert_close


def both(optimizer, chosen, parameters, lr=0.01):
    """Ours with its parameters, and torch.optim's with its own copy of them."""
    ours, theirs = parameters.clone(), parameters.clone().requires_grad_()
    plan = Plan(optimizer=optimizer, lr=lr, **chosen)
    return OPTIMIZERS[optimizer](ours, plan), ours, reference.OPTIMIZERS[optimizer]([theirs], lr=lr, **chosen), theirs


def test_the_optimizers_that_may_be_named_are_those_that_exist():
    assert set(get_args(OptimizerName)) == set(OPTIMIZERS) == set(OPTIMIZER_DEFAULTS) == set(reference.OPTIMIZERS)


@EVERY_SETTING
@settings(deadline=None, max_examples=10)
@given(size=st.integers(1, 50), seed=st.integers(0, 10_000), lr=st.sampled_from([1e-4, 0.01, 1.0]))
def test_every_one_of_many_steps_is_that_of_torch_optim(optimizer, chosen, size, seed, lr):
    numbers = stream(seed, "test")
    mine, ours, its, theirs = both(optimizer, chosen, torch.randn(size, generator=numbers), lr)
    for step in range(100):
        # Gradients of any size, sometimes for long in one direction and sometimes zero.
        gradient = torch.randn(size, generator=numbers) * 10.0 ** (step % 7 - 3) + (step // 20) % 2
        gradient *= torch.rand(size, generator=numbers) > 0.1
        theirs.grad = gradient.clone()
        its.step()
        mine.step(ours, gradient)
        close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


@EVERY_SETTING
def test_a_thousand_steps_down_a_bowl_end_where_torch_optim_ends(optimizer, chosen):
    numbers = stream(0, "test")
    slopes, bottom = 0.1 + torch.rand(30, generator=numbers), torch.randn(30, generator=numbers)
    mine, ours, its, theirs = both(optimizer, chosen, torch.randn(30, generator=numbers))
    for _ in range(1_000):
        its.zero_grad()
        (0.5 * slopes * (theirs - bottom) ** 2).sum().backward()
        its.step()
        mine.step(ours, slopes * (ours - bottom))
    close(ours, theirs.detach(), rtol=1e-4, atol=1e-4)


@EVERY_SETTING
def test_a_step_leaves_the_gradient_as_it_was(optimizer, chosen):
    mine, ours, _, _ = both(optimizer, chosen, torch.ones(4))
    gradient = torch.tensor([1.0, -2.0, 0.0, 3.0])
    before = gradient.clone()
    for _ in range(3):
        mine.step(ours, gradient)
    assert torch.equal(gradient, before)


@EVERY_SETTING
def test_steps_are_taken_in_place(optimizer, chosen):
    mine, ours, _, _ = both(optimizer, chosen, torch.ones(4))
    view = ours[1:3]
    mine.step(ours, torch.ones(4))
    assert torch.equal(view, ours[1:3])
    assert (ours != 1).all()


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_first_step_of_adam_is_the_learning_rate_whatever_the_gradient(optimizer):
    mine, ours, _, _ = both(optimizer, {"weight_decay": 0.0}, torch.zeros(3), lr=0.25)
    mine.step(ours, torch.tensor([1e-3, -5.0, 1e3]))
    close(ours, torch.tensor([-0.25, 0.25, -0.25]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_without_gradient_and_decay_nothing_moves(optimizer):
    mine, ours, _, _ = both(optimizer, {"weight_decay": 0.0}, torch.ones(3))
    for _ in range(5):
        mine.step(ours, torch.zeros(3))
    assert torch.equal(ours, torch.ones(3))


def test_decoupled_decay_shrinks_the_weights_though_nothing_pulls():
    mine, ours, _, _ = both("adamw", {"weight_decay": 0.5}, torch.ones(3), lr=0.1)
    for _ in range(4):
        mine.step(ours, torch.zeros(3))
    close(ours, torch.full((3,), 0.95**4))


def test_adam_and_adamw_are_one_without_decay():
    numbers = stream(0, "test")
    adam, ours, _, _ = both("adam", {"weight_decay": 0.0}, torch.ones(8))
    adamw, others, _, _ = both("adamw", {"weight_decay": 0.0}, torch.ones(8))
    for _ in range(20):
        gradient = torch.randn(8, generator=numbers)
        adam.step(ours, gradient)
        adamw.step(others, gradient)
    assert torch.equal(ours, others)
