"""Three optimizers on rows of parameters, one for each run, step for step what `torch.optim` does."""

from collections.abc import Callable
from math import sqrt
from typing import Any, Protocol

from service.training.arrays import Array, Backend
from service.training.plan import Plan


class Optimizer(Protocol):
    """Moves the parameters (runs, numbers) in place.

    `memory` is what it remembers of earlier gradients, by name, each like the parameters; with `steps` that is all of
    its state.
    """

    memory: dict[str, Array]
    steps: int

    def step(self, parameters: Array, gradient: Array, rates: Array) -> None:
        """One step at learning rates that broadcast over the parameters; may overwrite the gradient."""


class Adam:
    """Adam (arXiv:1412.6980); with `decoupled` decay AdamW (arXiv:1711.05101).

    Its two moments are kept as sums without their factors 1 - β, which spares a product each.
    """

    def __init__(self, backend: Backend, parameters: Array, plan: Plan, *, decoupled: bool = False) -> None:
        settings: Any = plan
        self.xp = backend.xp
        self.eps, self.weight_decay = settings.eps, settings.weight_decay
        self.beta1, self.beta2 = settings.betas
        # A call costs less with an array than with a number.
        self._betas = [backend.of(beta, str(parameters.dtype).rpartition(".")[2]) for beta in settings.betas]
        self.decoupled = decoupled
        self.steps = 0
        self.memory = {name: backend.xp.zeros_like(parameters) for name in ("mean", "square")}
        self._scratch = backend.xp.zeros_like(parameters)

    def step(self, parameters: Array, gradient: Array, rates: Array) -> None:
        xp, mean, square, scratch = self.xp, self.memory["mean"], self.memory["square"], self._scratch
        self.steps += 1
        if self.weight_decay:
            if self.decoupled:
                parameters *= 1 - rates * self.weight_decay
            else:
                gradient += self.weight_decay * parameters
        mean *= self._betas[0]
        mean += gradient
        xp.multiply(gradient, gradient, out=scratch)
        square *= self._betas[1]
        square += scratch
        unit = sqrt((1 - self.beta2) / (1 - self.beta2**self.steps))
        xp.sqrt(square, out=scratch)
        scratch += self.eps / unit
        xp.divide(mean, scratch, out=scratch)
        scratch *= rates * ((1 - self.beta1) / (1 - self.beta1**self.steps) / unit)
        parameters -= scratch


class SGD:
    """Gradient descent, with PyTorch's momentum: the first step takes the gradient as it is."""

    def __init__(self, backend: Backend, parameters: Array, plan: Plan) -> None:
        settings: Any = plan
        self.momentum, self.weight_decay = settings.momentum, settings.weight_decay
        self.steps = 0
        self.memory = {"velocity": backend.xp.zeros_like(parameters)}

    def step(self, parameters: Array, gradient: Array, rates: Array) -> None:
        velocity = self.memory["velocity"]
        self.steps += 1
        if self.weight_decay:
            gradient += self.weight_decay * parameters
        velocity *= self.momentum
        velocity += gradient
        gradient[...] = velocity
        gradient *= rates
        parameters -= gradient


def adamw(backend: Backend, parameters: Array, plan: Plan) -> Adam:
    """Adam whose weight decay does not pass through the moments."""
    return Adam(backend, parameters, plan, decoupled=True)


OPTIMIZERS: dict[str, Callable[[Backend, Array, Plan], Optimizer]] = {
    "adam": Adam,
    "adamw": adamw,
    "sgd": SGD,
}
