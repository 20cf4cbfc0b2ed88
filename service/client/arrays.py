"""Arrays on their way to the service and back: numpy's, torch's or lists. Torch itself is not imported."""

import sys
from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from service.codecs import layer, safetensors
from service.codecs.layer import DType, Layer

KEPT: dict[str, DType] = {"float16": "float16", "bfloat16": "bfloat16"}


class Tensor(Protocol):
    """A torch tensor, as far as it matters here."""

    device: Any

    def detach(self) -> Self: ...


T = TypeVar("T", bound=Tensor)


def is_tensor(x: object) -> bool:
    """Whether it is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_array(x: object) -> bool:
    """Whether it is an array of numpy or of torch."""
    return isinstance(x, np.ndarray | np.generic) or is_tensor(x)


def to_numpy(x: Any, dtype: DTypeLike | None = np.float32) -> NDArray[Any]:
    """The numbers in numpy's memory, without a copy where that can be; None keeps their dtype."""
    if is_tensor(x):
        x = x.detach().cpu()
        x = (x.float() if x.is_floating_point() else x).numpy()  # numpy has no bfloat16
    return np.asarray(x, dtype)


def like(x: Any, outputs: NDArray[np.generic]) -> Any:
    """The outputs in float32, as a tensor on the device of x where x is a tensor; they may be written to."""
    owned = np.array(outputs, np.float32)
    return sys.modules["torch"].from_numpy(owned).to(x.device) if is_tensor(x) else owned


def layer_file(weight: ArrayLike | Tensor, bias: ArrayLike | Tensor | None, dtype: DType | None) -> bytes:
    """The file of a frozen layer, weight (out, in) and perhaps bias (out,), by default in the dtype of the weight."""
    own = str(getattr(weight, "dtype", "")).removeprefix("torch.")
    tensors = to_numpy(weight), None if bias is None else to_numpy(bias)
    return layer.dumped(Layer(*tensors, dtype or KEPT.get(own, "float32")))


def moments_file(moments: Mapping[str, ArrayLike]) -> bytes:
    """The file of the moments of rows, each in float64."""
    return safetensors.dump({name: np.asarray(array, np.float64) for name, array in moments.items()})


def rows_file(x: ArrayLike | Tensor, y: ArrayLike | Tensor, weight: ArrayLike | Tensor | None) -> bytes:
    """The file of rows: inputs x (n, in), targets y (n, out) or integer classes (n,), perhaps weights (n,)."""
    targets = to_numpy(y, None)
    tensors = {"x": to_numpy(x), "y": targets if targets.dtype.kind in "iu" else to_numpy(targets)}
    return safetensors.dump(tensors if weight is None else {**tensors, "weight": to_numpy(weight)})
