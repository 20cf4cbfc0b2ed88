"""Three optimizers on one flat vector of parameters, step for step what `torch.optim` does."""

from collections.abc import Callable
from math import sqrt
from typing import Any, Protocol

import torch
from torch import Tensor

from service.training.plan import Plan


class Optimizer(Protocol):
    """Moves the parameters in place, one step for each gradient."""

    def step(self, parameters: Tensor, gradient: Tensor) -> None: ...


class Adam:
    """Adam (arXiv:1412.6980); with `decoupled` decay AdamW (arXiv:1711.05101)."""

    def __init__(self, parameters: Tensor, plan: Plan, *, decoupled: bool = False) -> None:
        settings: Any = plan
        self.lr, self.eps, self.weight_decay = plan.lr, settings.eps, settings.weight_decay
        self.beta1, self.beta2 = settings.betas
        self.decoupled = decoupled
        self.steps = 0
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)

    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        self.steps += 1
        if self.decoupled:
            parameters.mul_(1 - self.lr * self.weight_decay)
        elif self.weight_decay:
            gradient = gradient.add(parameters, alpha=self.weight_decay)
        self.mean.lerp_(gradient, 1 - self.beta1)
        self.square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        deviation = self.square.sqrt().div_(sqrt(1 - self.beta2**self.steps)).add_(self.eps)
        parameters.addcdiv_(self.mean, deviation, value=-self.lr / (1 - self.beta1**self.steps))


class SGD:
    """Gradient descent, with PyTorch's momentum: the first step takes the gradient as it is."""

    def __init__(self, parameters: Tensor, plan: Plan) -> None:
        settings: Any = plan
        self.lr, self.momentum, self.weight_decay = plan.lr, settings.momentum, settings.weight_decay
        self.velocity = torch.zeros_like(parameters)

    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        if self.weight_decay:
            gradient = gradient.add(parameters, alpha=self.weight_decay)
        self.velocity.mul_(self.momentum).add_(gradient)
        parameters.sub_(self.velocity, alpha=self.lr)


def adamw(parameters: Tensor, plan: Plan) -> Adam:
    """Adam whose weight decay does not pass through the moments."""
    return Adam(parameters, plan, decoupled=True)


OPTIMIZERS: dict[str, Callable[[Tensor, Plan], Optimizer]] = {
    "adam": Adam,
    "adamw": adamw,
    "sgd": SGD,
}
