"""How the frozen layer, A and B begin: each a function of a seed alone."""

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from service.lora.spec import Spec


def stream(seed: int, name: str) -> Generator:
    """A random stream of its own for each use of one seed.

    Were the base and A drawn from the same stream, A would repeat the first rows of the frozen weight.
    """
    digest = hashlib.sha256(f"{name}:{seed}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def uniform(rows: int, columns: int, bound: float, draw: Generator) -> Tensor:
    """A (rows, columns) matrix of U(-bound, bound)."""
    return torch.empty(rows, columns).uniform_(-bound, bound, generator=draw)


def frozen(spec: Spec, seed: int) -> tuple[Tensor, Tensor | None]:
    """A fresh base as `torch.nn.Linear` makes it: weight (out, in) and bias (out,) of U(±1/√in)."""
    draw = stream(seed, "base")
    bound = 1 / math.sqrt(spec.in_features)
    weight = uniform(spec.out_features, spec.in_features, bound, draw)
    return weight, uniform(1, spec.out_features, bound, draw)[0] if spec.bias else None


def kaiming(spec: Spec, draw: Generator) -> tuple[Tensor, Tensor]:
    """A kaiming-uniform with a = √5, which is U(±1/√in), and B zero: a new adapter changes nothing (PEFT's default)."""
    A = uniform(spec.rank, spec.in_features, 1 / math.sqrt(spec.in_features), draw)
    return A, torch.zeros(spec.out_features, spec.rank)


def normal(spec: Spec, draw: Generator) -> tuple[Tensor, Tensor]:
    """A and B both N(0, 1): a new adapter changes every output, which makes a toy's loss fall from high up."""
    A = torch.randn(spec.rank, spec.in_features, generator=draw)
    return A, torch.randn(spec.out_features, spec.rank, generator=draw)


def gaussian(spec: Spec, draw: Generator) -> tuple[Tensor, Tensor]:
    """A of N(0, 1/r²), that is of standard deviation 1/r, and B zero (PEFT's `"gaussian"`)."""
    A = torch.randn(spec.rank, spec.in_features, generator=draw) / spec.rank
    return A, torch.zeros(spec.out_features, spec.rank)


def orthogonal(spec: Spec, draw: Generator) -> tuple[Tensor, Tensor]:
    """A and B neither of them zero, and B A zero, since they stand on orthogonal halves of the rank, which is even.

    PEFT's `"orthogonal"`, after datta0.github.io/posts/rethink-lora-init.
    """
    turn, _ = torch.linalg.qr(torch.randn(spec.rank, spec.rank, generator=draw))  # (r, r)
    half = spec.rank // 2
    A = turn[0::2].T @ torch.randn(half, spec.in_features, generator=draw) / 10
    B = torch.randn(spec.out_features, half, generator=draw) @ turn[1::2] / 10
    return A, B


STARTS: dict[str, Callable[[Spec, Generator], tuple[Tensor, Tensor]]] = {
    "kaiming": kaiming,
    "normal": normal,
    "gaussian": gaussian,
    "orthogonal": orthogonal,
}


def start(spec: Spec, seed: int) -> tuple[Tensor, Tensor]:
    """A (r, in) and B (out, r) as `spec.init` begins them."""
    return STARTS[spec.init](spec, stream(seed, "adapter"))
