"""The best adapter of a rank for full-batch MSE, in closed form: reduced-rank regression (Izenman 1975).

With second moments xx = mean x xᵀ (in, in), xt = mean x tᵀ (in, out) and tt = mean ‖t‖² of inputs and of what is left
to learn, the error of a change D (out, in) is tt - 2⟨D, xtᵀ⟩ + ⟨D xx, D⟩. Let xx = F Fᵀ; then D F should be near
M = (F⁺ xt)ᵀ, and the nearest matrix of rank r keeps the top r singular directions of M. All of it is float64.

Where inputs lie far from 0, mean x xᵀ has no digits left for how they vary. So xx may be given about their `mean`
(in,), and stands for xx + mean meanᵀ, which is not formed where digits count: its root is F beside the mean.
"""

import torch
from torch import Tensor

CUT = 1e-12  # directions of the scaled inputs with less variance than this, of the largest's, hold no information
SURE = 1e-4  # Cholesky serves while no diagonal is smaller: what it loses is the square of that


def explained(xx: Tensor, xt: Tensor, mean: Tensor | None = None) -> Tensor:
    """How much each further rank can take away from tt, largest first: (min(in, out),), none below 0."""
    M = _fitted_values(xx, xt, mean)
    gram = M @ M.T if M.shape[0] <= M.shape[1] else M.T @ M
    taken = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)
    ranks = min(xt.shape)
    return torch.cat([taken[:ranks], taken.new_zeros(max(0, ranks - len(taken)))])


def best(xx: Tensor, xt: Tensor, rank: int, mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A (r, in) and B (out, r) with D = B A the best change of the rank; each takes the root of the singular values."""
    scale, inverse = _root(xx, mean)
    M = (inverse @ (xt * scale[:, None])).T  # (out, k)
    U, values, Vt = torch.linalg.svd(M, full_matrices=False)
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    A, B = xt.new_zeros(rank, len(xt)), xt.new_zeros(xt.shape[1], rank)
    B[:, :kept] = U[:, :kept] * root
    A[:kept] = (root[:, None] * Vt[:kept]) @ inverse * scale
    return A, B


def _fitted_values(xx: Tensor, xt: Tensor, mean: Tensor | None) -> Tensor:
    """Some M (out, k) whose singular values are those of the fitted values: by Cholesky where xx allows."""
    whole = xx if mean is None else xx + mean[:, None] * mean
    scale = _scale(whole.diagonal())
    L, info = torch.linalg.cholesky_ex(whole * scale * scale[:, None])
    if not int(info) and float(L.diagonal().min()) > SURE:
        half: Tensor = torch.linalg.solve_triangular(L, xt * scale[:, None], upper=False)
        return half.T
    scale, inverse = _root(xx, mean)
    fitted: Tensor = inverse @ (xt * scale[:, None])
    return fitted.T


def _scale(squares: Tensor) -> Tensor:
    """What gives every input mean square 1, so that none is lost for the unit it is measured in; 0 for a constant 0."""
    size: Tensor = squares.clamp_min(0).sqrt()
    return torch.where(size > 0, 1 / size, torch.zeros_like(size))


def _root(xx: Tensor, mean: Tensor | None) -> tuple[Tensor, Tensor]:
    """The scale, and the pseudo-inverse (k, in) of a root F (in, k) of the scaled moments, which may lack ranks."""
    scale = _scale(xx.diagonal())
    values, Q = torch.linalg.eigh(xx * scale * scale[:, None])
    kept = values > CUT * values.clamp_min(0).amax()
    root, Q = values[kept].sqrt(), Q[:, kept]
    if mean is None:
        return scale, (Q / root).T
    varied = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))[:, None] * Q * root
    scale = _scale(xx.diagonal().clamp_min(0) + mean**2)
    U, sizes, _ = torch.linalg.svd(scale[:, None] * torch.cat([varied, mean[:, None]], 1), full_matrices=False)
    kept = sizes > CUT * sizes.amax()  # of a root, so this is CUT² of a variance: no digits were lost before
    return scale, (U[:, kept] / sizes[kept]).T
