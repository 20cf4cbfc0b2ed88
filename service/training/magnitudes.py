"""What DoRA adds to a step: outputs stretched by magnitudes over norms, and the magnitudes' gradient."""

from collections.abc import Callable

from service.lora.layer import TINY
from service.training.adapters import Part
from service.training.arrays import Array


class Magnitudes:
    """y = m/‖V‖ ∘ u for u = x Vᵀ and V = W + s·B A, whose norms count as constants (DoRA, section 4.3).

    Arrays have the runs in front, or one where all share the same base.
    """

    def __init__(self, part: Part, W: Array, buffer: Callable[..., Array]) -> None:
        self._part, self._xp, self._W, self._buffer = part, part.backend.xp, W, buffer
        self._squares = self._xp.einsum("joi,joi->jo", W, W)
        self._u: Array = None
        self._per_length: Array = None
        self._factor: Array = None

    def stretched(self, change: Array, frozen: Array, B: Array, dropped: Array | None = None) -> Array:
        """The outputs (runs, batch, out); `change` becomes u.

        Args:
            change: s·(x Aᵀ) Bᵀ.
            frozen: x Wᵀ.
            B: s·B.
            dropped: the inputs where dropout has been at them. PEFT then stretches what becomes of these, and leaves
                x Wᵀ as it is.
        """
        seen = frozen if dropped is None else self._xp.matmul(dropped, self._W.swapaxes(1, 2))
        change += seen
        self._u = change
        self._per_length = 1 / self._lengths(B)[:, None]
        self._factor = self._part.of["magnitude"][:, None] * self._per_length
        p = self._buffer("stretched", *change.shape)
        self._xp.multiply(change, self._factor, out=p)
        if dropped is not None:
            p += frozen - seen
        return p

    def pulled(self, dp: Array) -> Array:
        """The gradient in u, from that in the outputs of the last `stretched`; writes the magnitudes' own."""
        gradient = self._part.gradient_of["magnitude"]
        gradient[...] = self._xp.einsum("jno,jno->jo", dp, self._u)
        gradient *= self._per_length[:, 0]
        return dp * self._factor

    def _lengths(self, B: Array) -> Array:
        """‖V‖ (runs, out), without V: its squares are those of W and of s·B A, and twice the products of both."""
        xp, A = self._xp, self._part.of["A"]
        beside = xp.matmul(self._W, A.swapaxes(1, 2))  # W Aᵀ (runs, out, r)
        beside *= 2
        beside += xp.matmul(B, xp.matmul(A, A.swapaxes(1, 2)))
        squares = self._squares + xp.einsum("jor,jor->jo", B, beside)
        return xp.sqrt(xp.clip(squares, TINY, None))
