"""Layers, rows and finished runs, as the tests of training need them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from service.lora import init
from service.lora.layer import LoRALinear
from service.lora.spec import Spec
from service.training.fit import Fitted, fit
from service.training.plan import LOSS_TARGETS, Plan
from tests import reference

TENSORS = ("weight", "bias", "A", "B", "own_bias")


@dataclass(frozen=True)
class Run:
    """What a run yielded and returned."""

    yields: list[float | None]
    fitted: Fitted

    @property
    def losses(self) -> list[float]:
        return [loss for loss in self.yields if loss is not None]

    @property
    def steps(self) -> int:
        return self.yields.count(None)


def layer_of(spec: Spec, seed: int = 0) -> LoRALinear:
    """The layer that the engine makes of a spec."""
    weight, bias = init.frozen(spec, seed)
    A, B = init.start(spec, seed)
    own = bias.clone() if spec.train_bias and bias is not None else None
    return LoRALinear(weight, bias, A, B, spec.scaling, own)


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


def run(layer: LoRALinear, x: Tensor, y: Tensor, plan: Plan, dropout: float = 0.0) -> Run:
    """Train to the end."""
    steps = fit(layer, x, y, plan, dropout)
    yields = []
    while True:
        try:
            yields.append(next(steps))
        except StopIteration as end:
            return Run(yields, end.value)


def by_reference(layer: LoRALinear, x: Tensor, y: Tensor, plan: Plan, **more: Any) -> tuple[list[float], Any]:
    """The same run by the seed document's loop."""
    batches = None
    if plan.batch_size is not None:
        batches = reference.shuffled(len(x), plan.batch_size, plan.epochs, plan.seed)
    return reference.train(
        vars(layer),
        layer.scaling,
        x,
        y,
        loss=plan.loss,
        optimizer=plan.optimizer,
        epochs=plan.epochs,
        lr=plan.lr,
        batches=batches,
        betas=plan.betas,
        eps=plan.eps,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        **more,
    )


def loss_of(layer: LoRALinear, x: Tensor, y: Tensor, loss: str) -> float:
    """The loss of a layer over all rows, by torch.nn."""
    return float(reference.LOSSES[loss](reference.outputs(vars(layer), layer.scaling, x), y))


def copies(layer: LoRALinear) -> dict[str, Tensor]:
    """All tensors of a layer as they are now."""
    return {name: getattr(layer, name).clone() for name in TENSORS if getattr(layer, name) is not None}


def unchanged(layer: LoRALinear, before: dict[str, Tensor]) -> bool:
    """Whether a layer still has the tensors it had, bit for bit."""
    now = copies(layer)
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in now)
