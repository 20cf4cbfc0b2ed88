"""The three optimizers take the steps of torch.optim."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lora.init import stream
from service.training.arrays import Backend
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
EVERY_BACKEND = [Backend(np, torch.device("cpu")), Backend(torch, torch.device("cpu"))]
EVERY_SETTING = pytest.mark.parametrize(("optimizer", "chosen"), SETTINGS)
close = torch.testing.assert_close


class Ours:
    """One run's optimizer in float64, by numpy and by torch, which must agree."""

    def __init__(self, optimizer, plan, parameters):
        self.parameters = parameters[None].clone()
        self.lr = plan.lr
        self._numpys = self.parameters.numpy().copy()
        self._steps = [
            OPTIMIZERS[optimizer](backend, its, plan)
            for backend, its in zip(EVERY_BACKEND, (self._numpys, self.parameters), strict=True)
        ]

    def step(self, parameters, gradient):
        by_numpy, by_torch = self._steps
        by_numpy.step(self._numpys, gradient.numpy().copy()[None], np.full((1, 1), self.lr))
        by_torch.step(self.parameters, gradient.clone()[None], torch.full((1, 1), self.lr, dtype=torch.float64))
        assert by_numpy.steps == by_torch.steps
        close(torch.from_numpy(self._numpys), self.parameters, rtol=1e-9, atol=1e-9)


def both(optimizer, chosen, parameters, lr=0.01):
    """Ours with its parameters, and torch.optim's with its own copy of them."""
    theirs = parameters.clone().requires_grad_()
    mine = Ours(optimizer, Plan(optimizer=optimizer, lr=lr, **chosen), parameters)
    return mine, mine.parameters[0], reference.OPTIMIZERS[optimizer]([theirs], lr=lr, **chosen), theirs


def test_the_optimizers_that_may_be_named_are_those_that_exist():
    assert set(get_args(OptimizerName)) == set(OPTIMIZER_DEFAULTS) == {*OPTIMIZERS, "closed_form"}
    assert set(OPTIMIZERS) == set(reference.OPTIMIZERS)


@EVERY_SETTING
@settings(max_examples=5)
@given(size=st.integers(1, 50), seed=st.integers(0, 10_000), lr=st.sampled_from([1e-4, 0.01, 1.0]))
def test_every_one_of_many_steps_is_that_of_torch_optim(optimizer, chosen, size, seed, lr):
    numbers = stream(seed, "test")
    mine, ours, its, theirs = both(optimizer, chosen, torch.randn(size, generator=numbers, dtype=torch.float64), lr)
    for step in range(100):
        # Gradients of any size, sometimes for long in one direction and sometimes zero.
        gradient = torch.randn(size, generator=numbers, dtype=torch.float64) * 10.0 ** (step % 7 - 3) + (step // 20) % 2
        gradient *= torch.rand(size, generator=numbers, dtype=torch.float64) > 0.1
        theirs.grad = gradient.clone()
        its.step()
        mine.step(ours, gradient)
        close(ours, theirs.detach(), rtol=1e-9, atol=1e-9)


@EVERY_SETTING
def test_a_hundred_steps_down_a_bowl_end_where_torch_optim_ends(optimizer, chosen):
    numbers = stream(0, "test")
    slopes, bottom = (
        0.1 + torch.rand(30, generator=numbers, dtype=torch.float64),
        torch.randn(30, generator=numbers, dtype=torch.float64),
    )
    mine, ours, its, theirs = both(optimizer, chosen, torch.randn(30, generator=numbers, dtype=torch.float64))
    for _ in range(100):
        its.zero_grad()
        (0.5 * slopes * (theirs - bottom) ** 2).sum().backward()
        its.step()
        mine.step(ours, slopes * (ours - bottom))
    close(ours, theirs.detach(), rtol=1e-9, atol=1e-9)


@EVERY_SETTING
@pytest.mark.parametrize("backend", EVERY_BACKEND)
def test_runs_side_by_side_take_the_steps_that_each_takes_alone_bit_for_bit(optimizer, chosen, backend):
    numbers = stream(0, "test")
    start, gradients = torch.randn(3, 20, generator=numbers), torch.randn(10, 3, 20, generator=numbers)
    plan, lr = Plan(optimizer=optimizer, **chosen), torch.tensor([[0.1], [0.01], [1.0]])

    def after(runs):
        parameters = backend.copied(backend.array(start[runs]))
        steps = OPTIMIZERS[optimizer](backend, parameters, plan)
        for gradient in gradients[:, runs]:
            steps.step(parameters, backend.copied(backend.array(gradient)), backend.array(lr[runs]))
        return backend.tensor(parameters)

    assert torch.equal(after(slice(0, 3)), torch.cat([after(slice(run, run + 1)) for run in range(3)]))


@EVERY_SETTING
def test_memory_and_steps_are_all_of_an_optimizers_state(optimizer, chosen):
    plan, rates = Plan(optimizer=optimizer, **chosen), np.full((1, 1), 0.1)
    through = np.random.default_rng(0).normal(size=(1, 8))
    steps = OPTIMIZERS[optimizer](EVERY_BACKEND[0], through, plan)
    for number in range(6):
        if number == 3:
            resumed = through.copy()
            again = OPTIMIZERS[optimizer](EVERY_BACKEND[0], resumed, plan)
            again.steps = steps.steps
            for name, numbers in steps.memory.items():
                again.memory[name][...] = numbers
        steps.step(through, np.cos(through), rates)
        if number >= 3:
            again.step(resumed, np.cos(resumed), rates)
            assert np.array_equal(through, resumed)


@EVERY_SETTING
def test_steps_are_taken_in_place(optimizer, chosen):
    mine, ours, _, _ = both(optimizer, chosen, torch.ones(4, dtype=torch.float64))
    view = ours[1:3]
    mine.step(ours, torch.ones(4, dtype=torch.float64))
    assert torch.equal(view, ours[1:3])
    assert (ours != 1).all()


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_first_step_of_adam_is_the_learning_rate_whatever_the_gradient(optimizer):
    mine, ours, _, _ = both(optimizer, {"weight_decay": 0.0}, torch.zeros(3, dtype=torch.float64), lr=0.25)
    mine.step(ours, torch.tensor([1e-3, -5.0, 1e3], dtype=torch.float64))
    close(ours, torch.tensor([-0.25, 0.25, -0.25], dtype=torch.float64), rtol=1e-4, atol=0)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_without_gradient_and_decay_nothing_moves(optimizer):
    mine, ours, _, _ = both(optimizer, {"weight_decay": 0.0}, torch.ones(3, dtype=torch.float64))
    for _ in range(5):
        mine.step(ours, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(ours, torch.ones(3, dtype=torch.float64))


def test_decoupled_decay_shrinks_the_weights_though_nothing_pulls():
    mine, ours, _, _ = both("adamw", {"weight_decay": 0.5}, torch.ones(3, dtype=torch.float64), lr=0.1)
    for _ in range(4):
        mine.step(ours, torch.zeros(3, dtype=torch.float64))
    close(ours, torch.full((3,), 0.95**4, dtype=torch.float64))


def test_adam_and_adamw_are_one_without_decay():
    numbers = stream(0, "test")
    adam, ours, _, _ = both("adam", {"weight_decay": 0.0}, torch.ones(8, dtype=torch.float64))
    adamw, others, _, _ = both("adamw", {"weight_decay": 0.0}, torch.ones(8, dtype=torch.float64))
    for _ in range(20):
        gradient = torch.randn(8, generator=numbers, dtype=torch.float64)
        adam.step(ours, gradient)
        adamw.step(others, gradient)
    assert torch.equal(ours, others)
