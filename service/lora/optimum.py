"""The best adapter of a rank for full-batch MSE, in closed form: reduced-rank regression (Izenman 1975).

With second moments xx = mean x xᵀ (in, in), xt = mean x tᵀ (in, out) and tt = mean ‖t‖² of inputs and of what is left
to learn, the error of a change D (out, in) is tt - 2⟨D, xtᵀ⟩ + ⟨D xx, D⟩. Let xx = F Fᵀ; then D F should be near
M = (F⁺ xt)ᵀ, and the nearest matrix of rank r keeps the top r singular directions of M. All of it is float64.
"""

import torch
from torch import Tensor

CUT = 1e-12  # directions of the scaled inputs with less variance than this, of the largest's, hold no information
SURE = 1e-4  # Cholesky serves while no diagonal is smaller: what it loses is the square of that


def explained(xx: Tensor, xt: Tensor) -> Tensor:
    """How much each further rank can take away from tt, largest first: (min(in, out),), none below 0."""
    M = _fitted_values(xx, xt)
    gram = M @ M.T if M.shape[0] <= M.shape[1] else M.T @ M
    taken = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)
    ranks = min(xt.shape)
    return torch.cat([taken[:ranks], taken.new_zeros(max(0, ranks - len(taken)))])


def best(xx: Tensor, xt: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (r, in) and B (out, r) with D = B A the best change of the rank; each takes the root of the singular values."""
    scale, inverse = _root(xx)
    M = (inverse @ (xt * scale[:, None])).T  # (out, k)
    U, values, Vt = torch.linalg.svd(M, full_matrices=False)
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    A, B = xt.new_zeros(rank, len(xt)), xt.new_zeros(xt.shape[1], rank)
    B[:, :kept] = U[:, :kept] * root
    A[:kept] = (root[:, None] * Vt[:kept]) @ inverse * scale
    return A, B


def _fitted_values(xx: Tensor, xt: Tensor) -> Tensor:
    """Some M (out, k) whose singular values are those of the fitted values: by Cholesky where xx allows."""
    scale = _scale(xx)
    L, info = torch.linalg.cholesky_ex(xx * scale * scale[:, None])
    if not int(info) and float(L.diagonal().min()) > SURE:
        half: Tensor = torch.linalg.solve_triangular(L, xt * scale[:, None], upper=False)
        return half.T
    scale, inverse = _root(xx)
    fitted: Tensor = inverse @ (xt * scale[:, None])
    return fitted.T


def _scale(xx: Tensor) -> Tensor:
    """What gives every input variance 1, so that none is lost for the unit it is measured in; 0 for a constant 0."""
    size: Tensor = xx.diagonal().clamp_min(0).sqrt()
    return torch.where(size > 0, 1 / size, torch.zeros_like(size))


def _root(xx: Tensor) -> tuple[Tensor, Tensor]:
    """The scale, and the pseudo-inverse (k, in) of a root F (in, k) of the scaled xx, which may lack ranks."""
    scale = _scale(xx)
    values, Q = torch.linalg.eigh(xx * scale * scale[:, None])
    kept = values > CUT * values.clamp_min(0).amax()
    root, Q = values[kept].sqrt(), Q[:, kept]
    return scale, (Q / root).T
