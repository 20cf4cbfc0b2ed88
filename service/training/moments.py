"""Full-batch MSE from the moments of the data: an epoch costs r·in·(in + out), whatever the number of rows.

The loss and both gradients depend on the rows only through their means and the second moments about them, which know
nothing of a layer: they serve every base, and those of two sets of rows add up to those of both.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.lora import optimum
from service.lora.layer import LoRALinear
from service.training.adapters import Adapters
from service.training.arrays import Array, Backend, backend_of, stacked
from service.training.cost import BLOCK_NUMBERS

# A loss this far below the largest term of its sum about the means has lost its digits: float64 has 16, and it keeps
# about six, less what the square of the mean target takes.
LOST = 1e-10
MIN_BLOCK_ROWS = 256

MATRICES = ("x_mean", "y_mean", "xx", "xy")


@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of weighted rows x (n, in) and y (n, out), in float64.

    `rows` is their number, `weight` the sum of their weights; the means are x_mean (in,) and y_mean (out,); about
    these, xx (in, in) = Σ w x xᵀ, xy (in, out) = Σ w x yᵀ and yy = Σ w ‖y‖².
    """

    rows: int
    weight: float
    x_mean: Array
    y_mean: Array
    xx: Array
    xy: Array
    yy: float

    def __add__(self, other: "Moments") -> "Moments":
        """Those of the rows of both (Chan, Golub and LeVeque 1979)."""
        weight = self.weight + other.weight
        share = other.weight / weight if weight else 0.0
        x, y = other.x_mean - self.x_mean, other.y_mean - self.y_mean
        between = self.weight * share
        return Moments(
            self.rows + other.rows,
            weight,
            self.x_mean + share * x,
            self.y_mean + share * y,
            self.xx + other.xx + (between * x)[:, None] * x,
            self.xy + other.xy + (between * x)[:, None] * y,
            self.yy + other.yy + between * float(y @ y),
        )


def as_arrays(moments: Moments) -> dict[str, Array]:
    """The moments as named arrays, to be kept or sent."""
    counts = np.array([moments.rows, moments.weight, moments.yy], dtype=np.float64)
    return {"counts": counts, **{name: getattr(moments, name) for name in MATRICES}}


def from_arrays(arrays: Mapping[str, Array]) -> Moments:
    """The moments that `as_arrays` described."""
    rows, weight, yy = arrays["counts"].tolist()
    return Moments(rows=int(rows), weight=weight, yy=yy, **{name: arrays[name] for name in MATRICES})


def given_moments(backend: Backend, arrays: Mapping[str, Tensor]) -> Moments | None:
    """The moments that `as_arrays` described, where they are among the arrays, each under `moments.` and its name."""
    if "moments.counts" not in arrays:
        return None
    matrices = {name: backend.array(arrays[f"moments.{name}"], "float64") for name in MATRICES}
    return from_arrays({"counts": arrays["moments.counts"], **matrices})


def gather(backend: Backend, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Generator[None, None, Moments]:
    """The moments of at least one row, in one pass; yields after each block of rows.

    Sums are taken about the mean of the first block that weighs anything, which spares them the digits that a common
    offset would take. Raises ValueError where no row weighs anything.
    """
    inputs, outputs = x.shape[1], y.shape[1]
    size = min(len(x), max(MIN_BLOCK_ROWS, BLOCK_NUMBERS // (inputs + outputs)))

    def zeros(*shape: int) -> Array:
        return backend.zeros(*shape, dtype="float64")

    rows_x, rows_y, xx, xy = zeros(size, inputs), zeros(size, outputs), zeros(inputs, inputs), zeros(inputs, outputs)
    block_xx, block_xy, sum_x, sum_y = zeros(inputs, inputs), zeros(inputs, outputs), zeros(inputs), zeros(outputs)
    shift_x = shift_y = None
    total, yy = 0.0, 0.0
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        bx, by = rows_x[: rows.stop - start], rows_y[: rows.stop - start]
        bx[...], by[...] = backend.array(x[rows]), backend.array(y[rows])
        w = None if weight is None else backend.array(weight[rows], "float64")[:, None]
        weighs = float(len(bx) if w is None else w.sum())
        if not weighs:
            continue
        if shift_x is None:
            shift_x, shift_y = (b.mean(0) if w is None else (b * w).sum(0) / weighs for b in (bx, by))
        bx -= shift_x
        by -= shift_y
        wx, wy = (bx, by) if w is None else (bx * w, by * w)
        backend.xp.matmul(wx.T, bx, out=block_xx)
        backend.xp.matmul(wx.T, by, out=block_xy)
        xx += block_xx
        xy += block_xy
        sum_x += wx.sum(0)
        sum_y += wy.sum(0)
        yy += float(backend.xp.einsum("no,no->", wy, by))
        total += weighs
        yield None
    if shift_x is None:
        raise ValueError("no row weighs anything")
    mean_x, mean_y = sum_x / total, sum_y / total  # about the shift
    xx -= mean_x[:, None] * sum_x
    xy -= mean_x[:, None] * sum_y
    yy = max(yy - float(mean_y @ sum_y), 0.0)
    return Moments(len(x), total, shift_x + mean_x, shift_y + mean_y, xx, xy, yy)


def gathered(backend: Backend, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Moments:
    """The moments that `gather` returns, for whoever has nothing to do between two blocks."""
    steps = gather(backend, x, y, weight)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            moments: Moments = end.value
            return moments


def of_rows(rows: Mapping[str, Array]) -> Moments:
    """The moments of arrays x, y and perhaps weight, that are float32."""
    x, y = (torch.from_numpy(rows[name]) for name in ("x", "y"))
    return gathered(backend_of(x), x, y, torch.from_numpy(rows["weight"]) if "weight" in rows else None)


@dataclass(frozen=True, eq=False)
class Residual:
    """What is left to learn when the frozen part of a layer has had its say.

    With targets t = y - x Wᵀ - b: `x_mean` (in,) and the mean `gap` (out,) of t, without b where the bias is trained;
    about the means, per unit of weight, `xx` (in, in), `xt` (in, out), and `tt` = mean ‖t‖². `largest` is the largest
    term of which `tt` is the sum.
    """

    x_mean: Array
    gap: Array
    xx: Array
    xt: Array
    tt: float
    largest: float


def residual(backend: Backend, moments: Moments, layer: LoRALinear) -> Residual:
    """The residual's moments under a layer's base."""
    W = backend.array(layer.frozen_weight(torch.float64))
    xx, xy, yy = moments.xx / moments.weight, moments.xy / moments.weight, moments.yy / moments.weight
    seen = xx @ W.T
    gap = moments.y_mean - W @ moments.x_mean
    if layer.own_bias is None and layer.bias is not None:
        gap = gap - backend.array(layer.bias, "float64")
    cross, own = float((W.T * xy).sum()), float((W.T * seen).sum())
    largest = max(yy, 2 * abs(cross), own)
    return Residual(moments.x_mean, gap, xx, xy - seen, yy - 2 * cross + own, largest)


def problem(known: Residual, *, bias_is_free: bool) -> tuple[Tensor, Tensor, Tensor | None, float]:
    """xx, xt, mean and tt as `lora.optimum` takes them: all about the means where a bias takes up the rest."""
    xx, xt, x_mean, gap = (torch.as_tensor(part) for part in (known.xx, known.xt, known.x_mean, known.gap))
    if bias_is_free:
        return xx, xt, None, known.tt
    return xx, xt + x_mean[:, None] * gap, x_mean, known.tt + float(gap @ gap)


def best_losses(known: Residual, *, bias_is_free: bool) -> list[float]:
    """The lowest loss that any adapter of rank 0, 1, … min(in, out) reaches.

    A loss that is lost in the digits of its terms is 0, which no adapter can be below.
    """
    xx, xt, mean, tt = problem(known, bias_is_free=bias_is_free)
    outputs = xt.shape[1]
    left = tt - torch.cumsum(torch.cat([xt.new_zeros(1), optimum.explained(xx, xt, mean)]), 0)
    floor = LOST * max(known.largest, tt)
    return [loss / outputs if loss > floor else 0.0 for loss in left.tolist()]


class ByMoments:
    """The loss of every run, and its gradient, from its residual's moments.

    The data is its deviations from the mean, of which the moments are known, and the mean, which is one more row. So
    c x_mean stands below the ranks of A xx, and c times the mean row's error below those of s Bᵀ: with c² = 2 / out,
    the factor that the square and the mean over the outputs leave in every gradient, one product then serves both. All
    buffers have the runs in front, and their views are made once: an epoch takes no longer than two dozen calls.
    """

    steps = 1
    accuracy = None

    def __init__(self, adapters: Adapters, residuals: Sequence[Residual]) -> None:
        backend, self.xp = adapters.backend, adapters.backend.xp
        (part,) = adapters.parts
        runs, rank, inputs = part.of["A"].shape
        outputs = part.of["B"].shape[1]
        self._c = c = (2 / outputs) ** 0.5

        def zeros(*shape: int) -> Array:
            return backend.zeros(runs, *shape, dtype="float64")

        self._xx = stacked(backend, residuals, lambda r: r.xx * c**2)  # (runs or 1, in, in)
        self._xt = stacked(backend, residuals, lambda r: r.xt * c**2)  # (runs or 1, in, out)
        self._gap = stacked(backend, residuals, lambda r: r.gap * c)
        self._constant = backend.of([r.tt / outputs for r in residuals], "float64")
        self._floor = backend.of([LOST * max(r.largest, 4 * r.tt) / outputs for r in residuals], "float64")
        self._scaling, self._scales = part.scaling, bool((part.scaling != 1).any())
        self._A, self._Bt = part.of["A"], part.of["B"].swapaxes(1, 2)
        self._dA, self._dBt = part.gradient_of["A"], part.gradient_of["B"].swapaxes(1, 2)
        self._bias, self._dbias = part.of.get("own_bias"), part.gradient_of.get("own_bias")
        self._Axx_mean, self._Axt = zeros(rank + 1, inputs), zeros(rank, outputs)
        self._Axx_mean[:, rank] = stacked(backend, residuals, lambda r: r.x_mean * c)
        self._sBt_error, self._K, self._S = zeros(rank + 1, outputs), zeros(rank + 1, rank), zeros(rank, rank + 1)
        self._pull, self._half = zeros(rank, inputs), zeros(rank + 1, outputs)
        self._half[:, rank] -= self._gap
        self._twice = zeros(1, 1)
        # Views.
        self._sBt, self._error = self._sBt_error[:, :rank], self._sBt_error[:, rank:]
        self._Axx, self._shift = self._Axx_mean[:, :rank], self._half[:, rank:]
        self._flat = self._sBt_error.reshape(runs, 1, -1), self._half.reshape(runs, -1, 1)

    def epoch(self) -> Iterator[Array]:
        """The losses (runs,), once the gradient is written."""
        yield self.losses()

    def measure(self) -> Generator[None, None, Array]:
        """The losses of the parameters as they are; overwrites the gradient."""
        yield None
        return self.losses()

    def lost(self, losses: Array) -> Array:
        """Which losses (…, runs) have lost their digits."""
        return losses < self._floor

    def losses(self) -> Array:
        """The losses (runs,); writes the gradient."""
        xp, matmul = self.xp, self.xp.matmul
        A, sBt, sBt_error, K = self._A, self._sBt, self._sBt_error, self._K
        xp.multiply(self._Bt, self._scaling, out=sBt)
        matmul(A, self._xx, out=self._Axx)
        matmul(A, self._xt, out=self._Axt)
        matmul(self._Axx_mean, A.swapaxes(1, 2), out=K)  # A xx Aᵀ | x_meanᵀ Aᵀ
        if self._bias is not None:
            xp.multiply(self._bias, self._c, out=self._shift[:, 0])
            self._shift[:, 0] -= self._gap
        matmul(K[:, -1:], sBt, out=self._error)
        self._error += self._shift
        matmul(sBt, sBt_error.swapaxes(1, 2), out=self._S)  # s² Bᵀ B | s Bᵀ error
        matmul(self._S, self._Axx_mean, out=self._dA)
        matmul(sBt, self._xt.swapaxes(1, 2), out=self._pull)
        self._dA -= self._pull
        matmul(K.swapaxes(1, 2), sBt_error, out=self._dBt)
        self._dBt -= self._Axt
        xp.subtract(self._dBt, self._Axt, out=self._half[:, :-1])
        matmul(*self._flat, out=self._twice)  # ⟨s Bᵀ, dBᵀ - A xt⟩ + error · shift: twice what varies of the loss
        if self._scales:
            self._dBt *= self._scaling
        if self._dbias is not None:
            xp.multiply(self._error[:, 0], self._c, out=self._dbias)
        return self._twice[:, 0, 0] / 2 + self._constant
