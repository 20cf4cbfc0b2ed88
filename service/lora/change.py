"""The change of a weight that an adapter stands for, in float64: the product of two factors, or the whole matrix."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from service.lora.layer import LoRALinear

STACKED_RANKS = 2_048  # ranks beyond which the whole matrix is decomposed in less time than its factors
WHOLE_SVD = 1_024  # features up to which a whole matrix is decomposed itself, beyond that its Gram matrix

Decomposition = tuple[Tensor, Tensor, Tensor]  # U (out, k), the singular values (k,) from the largest, Vᵀ (k, in)


@dataclass(frozen=True, eq=False)
class Change:
    """A change of a weight (out, in) in float64: B A, or A itself where there is no B.

    Shapes: A (k, in) and B (out, k); A (out, in) where it is the whole matrix. Singular values up to `floor` are
    taken for zero.
    """

    A: Tensor
    B: Tensor | None = None
    floor: float = 0.0

    @classmethod
    def of(cls, layer: LoRALinear, weight: float = 1.0) -> "Change":
        """So many times the change that a layer's adapter stands for; whole with a magnitude, which has no low rank.

        The scaling goes into A, as in PEFT's `add_weighted_adapter`. The floor is what rounding can have made of the
        layer's tensors, where parts of them take each other away.
        """
        rounding, A, B = torch.finfo(layer.A.dtype).eps, layer.A.double(), layer.B.double()
        if layer.magnitude is None:
            A = A * (weight * layer.scaling)
            return cls(A, B, rounding * float(A.norm() * B.norm()))
        precise = replace(layer, weight=layer.weight.double(), A=A, B=B, magnitude=layer.magnitude.double())
        whole = precise.delta()
        return cls(weight * whole, None, rounding * abs(weight) * float(precise.weight.norm() + whole.norm()))

    def whole(self) -> Tensor:
        """The matrix (out, in)."""
        return self.A if self.B is None else self.B @ self.A

    def values(self) -> Tensor:
        """The singular values (k,), from the largest: as many as the change's rank can be."""
        B, A = self._core()
        if B is None and min(A.shape) > WHOLE_SVD:
            squares: Tensor = torch.linalg.eigvalsh(A @ A.T if len(A) <= A.shape[1] else A.T @ A)
            return self._cleared(squares.flip(0).clamp_min(0).sqrt())
        return self._cleared(torch.linalg.svdvals(A if B is None else B @ A))

    def svd(self) -> Decomposition:
        """U, the singular values and Vᵀ; of a product by QR of its factors, without forming it."""
        if self.B is None:
            U, values, Vt = _whole_svd(self.A)
            return U, self._cleared(values), Vt
        left, upper = torch.linalg.qr(self.B)
        right, lower = torch.linalg.qr(self.A.T)
        U, values, Vt = torch.linalg.svd(upper @ lower.T, full_matrices=False)
        return left @ U, self._cleared(values), Vt @ right.T

    def inner(self, other: "Change") -> float:
        """⟨D₁, D₂⟩, the sum of the products of their entries, without forming a product of factors."""
        if self.B is None and other.B is None:
            return float((self.A * other.A).sum())
        if self.B is None or other.B is None:
            whole, factors = (self, other) if self.B is None else (other, self)
            assert factors.B is not None, "the other one is whole"
            return float((factors.B.T @ whole.A * factors.A).sum())
        return float((self.B.T @ other.B * (self.A @ other.A.T)).sum())

    def _core(self) -> tuple[Tensor | None, Tensor]:
        """Factors with the same singular values, at most as large as the ranks are many."""
        if self.B is None:
            return None, self.A
        return torch.linalg.qr(self.B, mode="r")[1], torch.linalg.qr(self.A.T, mode="r")[1].T

    def _cleared(self, values: Tensor) -> Tensor:
        return torch.where(values > self.floor, values, 0.0)


def is_whole(ranks: int, in_features: int, out_features: int) -> bool:
    """Whether a sum of so many ranks is better added up than stacked: its factors would be as large as the matrix."""
    return ranks > STACKED_RANKS or ranks >= min(in_features, out_features)


def _whole_svd(D: Tensor) -> Decomposition:
    if min(D.shape) <= WHOLE_SVD:
        U, values, Vt = torch.linalg.svd(D, full_matrices=False)
        return U, values, Vt
    if len(D) > D.shape[1]:
        V, values, Ut = _whole_svd(D.T)
        return Ut.T, values, V.T
    squares, U = torch.linalg.eigh(D @ D.T)
    values, U = squares.flip(0).clamp_min(0).sqrt(), U.flip(1)
    return U, values, torch.where(values > 0, 1 / values, 0.0)[:, None] * (U.T @ D)
