"""What stands between two layers: activations, and their slopes for the way back."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Array = Any  # numpy.ndarray or torch.Tensor
Map = Callable[[Tensor], Tensor]

ROOT_2, ROOT_2_PI = math.sqrt(2), math.sqrt(2 * math.pi)


def relu_slope(u: Tensor) -> Tensor:
    """1 where u is above 0, else 0, as in PyTorch at 0 itself."""
    return (u > 0).to(u.dtype)


def tanh_slope(u: Tensor) -> Tensor:
    """1 - tanh² u."""
    return 1 - torch.tanh(u) ** 2


def silu_slope(u: Tensor) -> Tensor:
    """σ(u)·(1 + u·(1 - σ(u)))."""
    share = torch.sigmoid(u)
    return share * (1 + u * (1 - share))


def gelu_slope(u: Tensor) -> Tensor:
    """Φ(u) + u·φ(u), of the normal distribution."""
    return (1 + torch.erf(u / ROOT_2)) / 2 + u * torch.exp(-(u**2) / 2) / ROOT_2_PI


# Each as `torch.nn.functional` has it, gelu without an approximation.
ACTIVATIONS: dict[str, tuple[Map, Map]] = {
    "identity": (lambda u: u, torch.ones_like),
    "relu": (functional.relu, relu_slope),
    "tanh": (torch.tanh, tanh_slope),
    "silu": (functional.silu, silu_slope),
    "gelu": (functional.gelu, gelu_slope),
}


def activated(name: str, u: Array) -> Array:
    """The activation of numbers of any shape; numpy's go through torch without a copy."""
    return _mapped(ACTIVATIONS[name][0], u)


def slope(name: str, u: Array) -> Array:
    """The activation's derivative where it was given u."""
    return _mapped(ACTIVATIONS[name][1], u)


def _mapped(compute: Map, u: Array) -> Array:
    return compute(torch.from_numpy(u)).numpy() if isinstance(u, np.ndarray) else compute(u)
