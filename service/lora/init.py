"""How the frozen layer, A and B begin: each a function of a seed, and of the base where a start looks at it."""

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from service.lora.layer import LoRALinear
from service.lora.spec import ON_THE_BASE, Spec

WHOLE_SVD = 2_048  # features up to which all singular values are computed for the sake of a few
POWERS = 16  # passes to and fro beyond that, as many as PEFT's users ask for with `pissa_niter_16`
SPARE = 8  # directions that are followed beside those wanted


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


def kaiming(spec: Spec, draw: Generator, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A kaiming-uniform with a = √5, which is U(±1/√in), and B zero: a new adapter changes nothing (PEFT's default)."""
    A = uniform(spec.rank, spec.in_features, 1 / math.sqrt(spec.in_features), draw)
    return A, torch.zeros(spec.out_features, spec.rank)


def normal(spec: Spec, draw: Generator, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A and B both N(0, 1): a new adapter changes every output, which makes a toy's loss fall from high up."""
    A = torch.randn(spec.rank, spec.in_features, generator=draw)
    return A, torch.randn(spec.out_features, spec.rank, generator=draw)


def gaussian(spec: Spec, draw: Generator, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A of N(0, 1/r²), that is of standard deviation 1/r, and B zero (PEFT's `"gaussian"`)."""
    A = torch.randn(spec.rank, spec.in_features, generator=draw) / spec.rank
    return A, torch.zeros(spec.out_features, spec.rank)


def orthogonal(spec: Spec, draw: Generator, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A and B neither of them zero, and B A zero, since they stand on orthogonal halves of the rank, which is even.

    PEFT's `"orthogonal"`, after datta0.github.io/posts/rethink-lora-init.
    """
    turn, _ = torch.linalg.qr(torch.randn(spec.rank, spec.rank, generator=draw))  # (r, r)
    half = spec.rank // 2
    A = turn[0::2].T @ torch.randn(half, spec.in_features, generator=draw) / 10
    B = torch.randn(spec.out_features, half, generator=draw) @ turn[1::2] / 10
    return A, B


def pissa(spec: Spec, draw: Generator, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A and B hold the top r singular directions of the base, which s·B A takes from it (PiSSA, arXiv:2404.02948)."""
    U, values, Vt = principal(weight, spec.rank, draw)
    root = (values / spec.scaling).sqrt()
    return root[:, None] * Vt, U * root


def olora(spec: Spec, draw: Generator, weight: Tensor) -> tuple[Tensor, Tensor]:
    """B and A hold the first r columns of Q and rows of R in the base's W = Q R (OLoRA, arXiv:2406.01775)."""
    Q, _ = torch.linalg.qr(weight[:, : spec.rank])
    return Q.T @ weight, Q


STARTS: dict[str, Callable[[Spec, Generator, Tensor], tuple[Tensor, Tensor]]] = {
    "kaiming": kaiming,
    "normal": normal,
    "gaussian": gaussian,
    "orthogonal": orthogonal,
    "pissa": pissa,
    "olora": olora,
}


def start(spec: Spec, seed: int, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A and B as `spec.init` begins them on a base's weight (out, in): A (ranks, in), B (out, ranks).

    A start that holds a part of the base has that part once more, frozen and taken away, so that it changes no output:
    there are 2r ranks then, else r.
    """
    A, B = STARTS[spec.init](spec, stream(seed, "adapter"), weight)
    return (torch.cat([A, A]), torch.cat([B, -B], dim=1)) if spec.init in ON_THE_BASE else (A, B)


def begun(spec: Spec, seed: int, weight: Tensor, bias: Tensor | None) -> LoRALinear:
    """The layer on a base as it is before any training: its own bias is the base's, its magnitude that of its rows."""
    A, B = (tensor.to(weight.device) for tensor in start(spec, seed, weight))
    own_bias = bias.clone() if spec.train_bias and bias is not None else None
    layer = LoRALinear(weight, bias, A, B, spec.scaling, own_bias, frozen_rank=spec.frozen_rank)
    if not spec.use_dora:
        return layer
    return layer.adapted({"magnitude": torch.linalg.vector_norm(layer.direction(), dim=1)})


def principal(weight: Tensor, rank: int, draw: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, r), values (r,) and Vt (r, in) of the largest singular values.

    Of large matrices by powers of a random projection (Halko, Martinsson and Tropp 2011), which is near enough for a
    start: whatever it holds is taken from the base.
    """
    if min(weight.shape) <= WHOLE_SVD:
        U, values, Vt = torch.linalg.svd(weight, full_matrices=False)
    else:
        Q = torch.randn(weight.shape[1], rank + SPARE, generator=draw).to(weight.device)
        for _ in range(POWERS):
            Q, _ = torch.linalg.qr(weight @ Q)
            Q, _ = torch.linalg.qr(weight.T @ Q)
        Q, _ = torch.linalg.qr(weight @ Q)
        U, values, Vt = torch.linalg.svd(Q.T @ weight, full_matrices=False)
        U = Q @ U
    return U[:, :rank], values[:rank], Vt[:rank]
