"""Layers, rows and finished runs, as the tests of training need them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Generator, Tensor

from service.errors import Validation
from service.lora import init
from service.lora.layer import LoRALinear
from service.lora.spec import Spec
from service.training.datasets import drawn
from service.training.fit import Diverged, Ended, Epochs, fit
from service.training.lesson import Fitted, Lesson
from service.training.plan import LOSS_TARGETS, Plan
from service.training.rows import Rows
from service.training.schedules import factor
from service.training.sources import Inline
from service.training.state import State
from tests import reference

TENSORS = ("weight", "bias", "A", "B", "own_bias", "magnitude")


SMALL = Spec(in_features=6, out_features=4, rank=2, init="normal")


@dataclass(frozen=True)
class Run:
    """What one run told, and its state after each epoch that was asked for it."""

    told: list[Epochs | Ended | None]
    states: dict[int, State]

    @property
    def epochs(self) -> list[Epochs]:
        return [told for told in self.told if isinstance(told, Epochs)]

    @property
    def losses(self) -> list[float]:
        return self.curve("losses")

    def curve(self, name: str) -> list[float]:
        return [number for epochs in self.epochs for number in epochs.curves[name][:, 0].tolist()]

    @property
    def steps(self) -> int:
        return self.told.count(None)

    @property
    def outcome(self) -> Fitted | Diverged:
        (ended,) = [told for told in self.told if isinstance(told, Ended)]
        return ended.outcome

    @property
    def fitted(self) -> Fitted:
        assert isinstance(self.outcome, Fitted), "the run diverged"
        return self.outcome


def layer_of(spec: Spec, seed: int = 0) -> LoRALinear:
    """The layer that the engine makes of a spec."""
    return init.begun(spec, seed, *init.frozen(spec, seed))


def targets_for(loss: str, n: int, out: int, numbers: Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Targets that fit a loss: N(0, 1), U(0, 1), or classes."""
    kind = LOSS_TARGETS[loss]
    if kind == "classes":
        return torch.randint(out, (n,), generator=numbers)
    draw = torch.randn if kind == "numbers" else torch.rand
    return draw(n, out, generator=numbers, dtype=dtype)


def rows_for(loss: str, layer: LoRALinear, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs N(0, 1), and targets that fit a loss."""
    numbers = init.stream(seed, "test")
    out_features, in_features = layer.weight.shape
    return torch.randn(n, in_features, generator=numbers), targets_for(loss, n, out_features, numbers)


def learn(lesson: Lesson, keep: bool = False) -> Run:
    """Train to the end, in bursts; or one epoch at a time to `keep` the state after each."""
    told, states = [], {}
    for step in fit([lesson], **({"burst": 1} if keep else {})):
        told.append(step)
        if keep and isinstance(step, Epochs):
            state = step.state(0)
            states[state.epoch] = state
    return Run(told, states)


def run(layer: LoRALinear, x: Tensor, y: Tensor, plan: Plan, dropout: float = 0.0, **more: Any) -> Run:
    """Train on these rows to the end."""
    return learn(Lesson(layer, plan, Rows(x, y, more.pop("weight", None)), dropout=dropout, **more))


def stacked(
    lessons: list[Lesson], leave: tuple[int, int] | None = None
) -> tuple[dict[int, list[float]], dict[int, Any]]:
    """The losses and the outcome of each of some runs side by side; one may `leave` once it has told so many."""
    steps = fit(lessons) if leave is None else fit(lessons, burst=1)
    losses, outcomes = {run: [] for run in range(len(lessons))}, {}
    sent = None
    while True:
        try:
            told = steps.send(sent)
        except StopIteration:
            return losses, outcomes
        sent = None
        if isinstance(told, Epochs):
            for run, curve in zip(told.runs, told.curves["losses"].T.tolist(), strict=True):
                losses[run] += curve
            if leave is not None and len(losses[leave[0]]) == leave[1]:
                sent = [leave[0]]
        elif isinstance(told, Ended):
            assert told.run not in outcomes
            outcomes[told.run] = told.outcome


def plan_for(loss: str, n: int, **chosen: Any) -> Plan:
    """A settled plan for n rows of a test's own."""
    targets = {"cross_entropy": "classes", "bce_with_logits": "probabilities"}.get(loss, "numbers")
    return Plan(**{"seed": 0, "loss": loss, "data": Inline(n_samples=n, targets=targets), **chosen})


def gentle(spec: Spec, seed: int = 0) -> LoRALinear:
    """A layer whose A and B are normal, of a size that gives outputs of about 1.

    Where a loss saturates, gradients are nothing but rounding, and Adam makes whole steps of them.
    """
    layer = layer_of(spec, seed)
    B = layer.B / (layer.scaling * spec.rank**0.5)
    return layer.adapted({"A": layer.A / spec.in_features**0.5, "B": B})


def unadapted(layer: LoRALinear) -> LoRALinear:
    """The layer whose trained ranks change nothing."""
    trained = layer.trained()
    return layer.learned({**trained, "B": torch.zeros_like(trained["B"])})


@st.composite
def layers(draw: Any, *, use_dora: bool = False) -> LoRALinear:
    """Any small layer; with two outputs at least, or a cosine could not turn."""
    in_features, out_features = draw(st.integers(1, 12)), draw(st.integers(2, 8))
    bias = draw(st.booleans())
    spec = Spec(
        in_features=in_features,
        out_features=out_features,
        rank=draw(st.integers(1, min(in_features, out_features))),
        alpha=draw(st.none() | st.floats(0.1, 10)),
        use_rslora=draw(st.booleans()),
        use_dora=use_dora,
        init=draw(st.sampled_from(["normal", "pissa", "olora"])),
        bias=bias,
        train_bias=bias and draw(st.booleans()),
    )
    return gentle(spec, draw(st.integers(0, 1_000)))


def by_reference(layer: LoRALinear, x: Tensor, y: Tensor, plan: Plan, **more: Any) -> tuple[list[float], Any]:
    """The same run by the seed document's loop."""
    batches, batch_size = None, plan.batch_size or len(x)
    if plan.batch_size is not None:
        batches = reference.shuffled(len(x), plan.batch_size, plan.epochs, drawn(plan.seed))
    a_epoch = -(-len(x) // batch_size)
    steps = plan.epochs * a_epoch
    return reference.train(
        reference.parts(layer),
        layer.scaling,
        x,
        y,
        loss=plan.loss,
        optimizer=plan.optimizer,
        epochs=plan.epochs,
        lr=plan.lr,
        batches=batches,
        factors=[factor(plan.schedule, step, steps, plan.warmup_epochs * a_epoch) for step in range(steps)],
        lr_b_ratio=plan.lr_b_ratio,
        max_grad_norm=plan.max_grad_norm,
        betas=plan.betas,
        eps=plan.eps,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        **more,
    )


def in_double(layer: LoRALinear, *tensors: Tensor) -> tuple[Any, ...]:
    """The layer and the tensors in float64."""
    doubled = {name: getattr(layer, name).double() for name in TENSORS if getattr(layer, name) is not None}
    return (replace(layer, **doubled), *(tensor.double() for tensor in tensors))


def loss_of(layer: LoRALinear, x: Tensor, y: Tensor, loss: str, weight: Tensor | None = None) -> float:
    """The loss of a layer over all rows, by torch.nn."""
    return float(reference.mean_loss(loss, reference.outputs(reference.parts(layer), layer.scaling, x), y, weight))


def copies(layer: LoRALinear) -> dict[str, Tensor]:
    """All tensors of a layer as they are now."""
    return {name: getattr(layer, name).clone() for name in TENSORS if getattr(layer, name) is not None}


def unchanged(layer: LoRALinear, before: dict[str, Tensor]) -> bool:
    """Whether a layer still has the tensors it had, bit for bit."""
    now = copies(layer)
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in now)


def refusal(make: Callable[[], Any], kind: type[Validation] = Validation) -> Validation:
    """The error that making something raises: exactly of this kind, with one fault."""
    with pytest.raises(Validation) as refused:
        make()
    assert type(refused.value) is kind
    assert len(refused.value.faults) == 1
    return refused.value
