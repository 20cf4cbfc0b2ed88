"""What training computes with: numpy's arrays on the CPU, where a call costs a quarter of torch's, elsewhere torch's.

The rooms' formulas use names that both have (`matmul`, `multiply`, `einsum`, `out=` …); here is what differs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = Any  # numpy.ndarray or torch.Tensor

FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Backend:
    """A library of arrays, `xp`, and the device it works on."""

    xp: Any
    device: torch.device

    def array(self, tensor: Tensor, dtype: str | None = None) -> Array:
        """The tensor's numbers, shared where nothing has to be converted."""
        if self.xp is torch:
            return tensor if dtype is None else tensor.to(getattr(torch, dtype))
        array = tensor.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def zeros(self, *shape: int, dtype: str) -> Array:
        return self.xp.zeros(shape, dtype=getattr(self.xp, dtype), device=self.device if self.xp is torch else "cpu")

    def of(self, numbers: Any, dtype: str) -> Array:
        """A list, or an array of the CPU's, as an array here."""
        array = np.asarray(numbers, dtype=dtype)
        return torch.from_numpy(array).to(self.device) if self.xp is torch else array

    def copied(self, array: Array, dtype: str | None = None) -> Array:
        """A copy of an array or a tensor, converted where a dtype is given."""
        if self.xp is torch:
            return array.to(getattr(torch, dtype or str(array.dtype).rpartition(".")[2]), copy=True)
        return np.array(array, dtype=dtype)

    def cpu(self, array: Array) -> Any:
        """A copy as numpy's array."""
        return array.cpu().numpy().copy() if self.xp is torch else np.array(array)

    def tensor(self, array: Array, dtype: torch.dtype = torch.float32) -> Tensor:
        """A copy as a tensor."""
        return array.to(dtype, copy=True) if self.xp is torch else torch.from_numpy(np.array(array)).to(dtype)


def backend_of(tensor: Tensor) -> Backend:
    """The one that works where a tensor lives."""
    return Backend(np if tensor.device.type == "cpu" else torch, tensor.device)


def stacked(backend: Backend, items: Sequence[Any], make: Callable[[Any], Array] = lambda item: item) -> Array:
    """What `make` makes of each item, in one array with the runs in front; of one that all share, made once (1, …)."""
    if all(item is items[0] for item in items):
        return make(items[0])[None]
    return backend.xp.stack([make(item) for item in items])
