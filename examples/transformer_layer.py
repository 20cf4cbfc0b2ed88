"""One layer of a transformer learns from the rows that went through it, and goes back into the model by PEFT.

`python examples/transformer_layer.py [--url URL]` builds a small Llama, records what one of its linear layers is given,
lets an adapter learn a hidden change of that layer over HTTP, and loads the adapter into the whole model.
"""

import copy
import os
import sys
import warnings
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from running import run
from torch import Tensor, nn

from service.cli.follow import follow
from service.client import Client

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"

from peft import PeftModel
from transformers import LlamaConfig, LlamaModel

MODULE = "layers.1.mlp.down_proj"
RANK = 4
SEQUENCES, TOKENS = 32, 64

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Lesson:
    """A model, one layer of which is to change, and the same model as it shall be."""

    plain: LlamaModel
    wanted: LlamaModel
    tokens: Tensor

    @property
    def layer(self) -> nn.Linear:
        return self.plain.get_submodule(MODULE)


def transformer_layer(client: Client, console: Console) -> None:
    """Record, upload, train, and load the adapter into the whole model."""
    console.rule(f"{MODULE} of a Llama")
    lesson = made()
    x = recorded(lesson.plain, lesson.tokens)
    base = client.upload_base(lesson.layer.weight)
    model = client.create(base_id=base, rank=RANK, seed=0, name=MODULE)
    dataset = client.upload_dataset(x, x @ lesson.wanted.get_submodule(MODULE).weight.detach().numpy().T)
    (job,) = follow(console, {MODULE: client.train(model, data=dataset, epochs=500, lr=0.01, seed=0)})
    warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name that is to change
    with TemporaryDirectory() as folder:
        client.export_peft(model, folder, MODULE)
        adapted = PeftModel.from_pretrained(copy.deepcopy(lesson.plain), folder)
    merged = with_weight(lesson.plain, torch.from_numpy(client.merged(model)["weight"]))
    console.print(as_table(lesson, adapted, merged))
    console.print(f"{dataset.n_samples:,} rows, loss {job.losses[0]:.2e} → {job.metrics['final_loss']:.2e},")
    console.print(f"{job.metrics['gap_closed']:.1%} of the way to the best adapter of rank {RANK}.")


def made() -> Lesson:
    """A small Llama with random weights, a change of rank RANK to one layer, and tokens to run it on."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    plain = LlamaModel(LlamaConfig(vocab_size=256, **sizes)).eval()
    weight = plain.get_submodule(MODULE).weight.detach()
    change = torch.randn(weight.shape[0], RANK) @ torch.randn(RANK, weight.shape[1]) / 20
    return Lesson(plain, with_weight(plain, weight + change), torch.randint(256, (SEQUENCES, TOKENS)))


def recorded(model: LlamaModel, tokens: Tensor) -> Rows:
    """What the layer is given while the model runs, a row for each token (n, in)."""
    rows: list[Tensor] = []
    hook = model.get_submodule(MODULE).register_forward_hook(lambda layer, inputs, output: rows.append(inputs[0]))
    outputs(model, tokens)
    hook.remove()
    return torch.cat(rows).flatten(0, -2).numpy()


def with_weight(model: LlamaModel, weight: Tensor) -> LlamaModel:
    """A copy of the model, with another weight in the layer."""
    changed = copy.deepcopy(model)
    changed.get_submodule(MODULE).weight.data.copy_(weight)
    return changed


def outputs(model: nn.Module, tokens: Tensor) -> Tensor:
    """The model's last hidden states (sequences, tokens, hidden)."""
    with torch.no_grad():
        return model(input_ids=tokens).last_hidden_state


def as_table(lesson: Lesson, adapted: nn.Module, merged: nn.Module) -> Table:
    """How far the whole model's outputs are apart; they are of the order of 1."""
    table = Table(title="Outputs of the whole model, largest difference")
    table.add_column("between")
    table.add_column("difference", justify="right")
    tokens = torch.randint(256, (SEQUENCES, TOKENS))  # which nobody has learnt from
    plain, wanted, by_peft, by_merge = (
        outputs(model, tokens) for model in (lesson.plain, lesson.wanted, adapted, merged)
    )
    for name, one, other in (
        ("the plain model and the wanted one", plain, wanted),
        ("the plain model with the adapter and the wanted one", by_peft, wanted),
        ("the plain model with the adapter and with the merged weight", by_peft, by_merge),
    ):
        table.add_row(name, f"{(one - other).abs().max():.1e}")
    return table


if __name__ == "__main__":
    sys.exit(run(transformer_layer, str(__doc__).partition("\n")[0]))
