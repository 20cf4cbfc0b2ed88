"""What the training is measured against: the loop one would write with torch, and one with PEFT."""

from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn


class SeedLayer(nn.Module):
    """A frozen linear layer with a low-rank change, by autograd."""

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features).requires_grad_(False)
        self.A = nn.Parameter(torch.randn(rank, in_features))
        self.B = nn.Parameter(torch.randn(out_features, rank))
        self.scaling = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.scaling * (x @ self.A.T @ self.B.T)


class Wrapped(nn.Module):
    """PEFT adapts what has a name inside a module."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def peft_layer(in_features: int, out_features: int, rank: int) -> nn.Module:
    """The same layer as PEFT makes it."""
    return get_peft_model(
        Wrapped(in_features, out_features), LoraConfig(r=rank, lora_alpha=rank, target_modules=["linear"])
    )


def full_batches(layer: nn.Module, x: Tensor, y: Tensor, epochs: int) -> list[float]:
    """Adam on the mean squared error of all rows; the loss of each epoch."""
    optimizer = torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], lr=0.01)
    criterion, losses = nn.MSELoss(), []
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = criterion(layer(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def minibatches(layer: nn.Module, x: Tensor, y: Tensor, epochs: int, batch_size: int) -> list[float]:
    """Adam on the cross entropy of shuffled batches; the loss of each epoch."""
    optimizer = torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], lr=0.01)
    criterion: Callable[[Tensor, Tensor], Tensor] = nn.CrossEntropyLoss()
    losses = []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            loss = criterion(layer(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        losses.append(total / len(x))
    return losses
