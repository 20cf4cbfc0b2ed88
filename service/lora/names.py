"""What the tensors of a chain are called: the place of their layer, then their name in it. Imports no torch."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def named(parts: Sequence[Mapping[str, T]]) -> dict[str, T]:
    """The tensors of all layers; those of one layer alone keep their bare names."""
    if len(parts) == 1:
        return dict(parts[0])
    return {f"{place}.{name}": tensor for place, part in enumerate(parts) for name, tensor in part.items()}


def by_layer(tensors: Mapping[str, T], count: int) -> list[dict[str, T]]:
    """What `named` named, of each of so many layers."""
    if count == 1:
        return [dict(tensors)]
    return [
        {name.removeprefix(f"{place}."): tensor for name, tensor in tensors.items() if name.startswith(f"{place}.")}
        for place in range(count)
    ]
