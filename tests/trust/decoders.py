"""Every decoder of bytes from outside or from a worker, with bodies that it takes."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from service.codecs import json as json_
from service.codecs import layer, message, npy, oip, peft, safetensors
from service.codecs.by_type import CODECS
from service.codecs.codec import Codec
from service.errors import ServiceError
from service.lora.spec import Spec
from tests.codecs.wire import npy_file, written
from tests.trust.hooks import ones, tensors

SPEC = Spec(in_features=4, out_features=3, rank=2)
X = np.arange(8, dtype=np.float32).reshape(2, 4)


class Decoder(NamedTuple):
    """One way from bytes to values: bodies that it takes, and the errors with which it refuses others."""

    decode: Callable[[bytes], Any]
    bodies: list[bytes]
    refusals: tuple[type[Exception], ...] = (ServiceError,)


def _of(codec: Codec) -> dict[str, Decoder]:
    bodies = [written(codec, x) for x in (X, X[0], X.reshape(1, 2, 4))]
    return {
        codec.media_type: Decoder(lambda body: codec.decode(body, 4), bodies),
        f"{codec.media_type}, the quick way": Decoder(lambda body: codec.quick(body, 4), bodies),
    }


BASE = tensors(weight=ones(3, 4), bias=ones(3))
ADAPTERS = [
    tensors(**{"lora_A.weight": ones(2, 4), "lora_B.weight": ones(3, 2)}),
    tensors(**{"base_model.model.0.lora_A.weight": ones(2, 4), "base_model.model.0.lora_B.weight": ones(3, 2)}),
]
REQUEST = {"in_features": 4, "out_features": 3, "metadata": {"a": "ü\n"}, "layers": [1.5, -2e-7, None, True]}

DECODERS = {
    **{name: decoder for codec in CODECS.values() for name, decoder in _of(codec).items()},
    "JSON": Decoder(json_.parse, [json.dumps(REQUEST).encode()]),
    "npy": Decoder(npy.load, [npy_file(X), npy_file(X.astype("<f8"), (2, 0))]),
    "safetensors": Decoder(safetensors.load, [BASE, *ADAPTERS]),
    "a base": Decoder(layer.loaded, [BASE]),
    "an adapter": Decoder(lambda body: peft.loaded(body, SPEC), ADAPTERS),
    "the modules of an adapter": Decoder(peft.modules, ADAPTERS),
    "tensors of the Open Inference Protocol": Decoder(
        lambda body: oip.from_bytes(body, "FP32", [2, 4], 4), [X.tobytes()]
    ),
    # From a process of our own, which sends no garbage; still it must be told from a message.
    "a worker's message": Decoder(
        message.unpack, [bytes(message.pack({"epoch": 1}, {"A": X, "B": X[0]}))], (ValueError, TypeError)
    ),
}
