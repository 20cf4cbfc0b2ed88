"""The two files of a PEFT adapter: what it is, and its tensors under PEFT's names for one module of a network."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bounds import cut
from service.codecs.codec import Array, finite
from service.codecs.safetensors import Tensors, dump, load
from service.errors import BadSafetensors, Fault, ShapeMismatch, pointer
from service.lora.spec import Spec

PREFIX = "base_model.model."
# What an adapter's tensors are called in a file without a module, and behind the module's name.
ALONE = {"A": "lora_A.weight", "B": "lora_B.weight", "own_bias": "bias", "magnitude": "lora_magnitude_vector"}
IN_MODULE = {**ALONE, "own_bias": "base_layer.bias"}
# What the frozen ranks of an adapter began with, where they stand by themselves: B with its own sign.
STARTS = {"A_init": "lora_A_init.weight", "B_init": "lora_B_init.weight"}
OLDER = {"lora_magnitude_vector.weight": "lora_magnitude_vector"}  # as peft calls it within a model
MODULE = r"^\w+(\.\w+)*$"
OF_A_MODULE = re.compile(rf"{re.escape(PREFIX)}(\w+(?:\.\w+)*)\.((?:lora_|base_layer\.).+)")
DEFAULT_MODULE = "linear"
SHOWN = 10  # modules that are listed in an error


def config(spec: Spec, module: str) -> dict[str, Any]:
    """`adapter_config.json`, with which `PeftModel.from_pretrained` puts the adapter on a module.

    Frozen ranks count as ranks, as in PEFT's own conversion of such a start, so the base stays what it is there too.
    """
    ranks = spec.rank + spec.frozen_rank
    wider: float = ranks / spec.rank  # and alpha with it, so that the scaling is the same
    alpha = float(spec.alpha or 0) * (wider**0.5 if spec.use_rslora else wider)
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        "task_type": None,
        "inference_mode": True,
        "target_modules": [module],
        "r": ranks,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": spec.dropout,
        "use_rslora": spec.use_rslora,
        "use_dora": spec.use_dora,
        "bias": "lora_only" if spec.train_bias else "none",
        "init_lora_weights": True,
        "fan_in_fan_out": False,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def dumped(adapter: Mapping[str, NDArray[Any]], module: str) -> bytes:
    """`adapter_model.safetensors`, as PEFT itself writes it."""
    return dump({f"{PREFIX}{module}.{IN_MODULE[name]}": tensor for name, tensor in adapter.items()})


def loaded(body: bytes | bytearray, spec: Spec, module: str | None = None) -> dict[str, Array]:
    """The adapter in a file, for a model of this spec; nothing may be missing and nothing left over.

    Args:
        module: which one to take, where the file has several.

    Raises:
        BadSafetensors: for a file that the library refuses, or other tensors than the model has.
        ShapeMismatch, NonFinite
    """
    tensors = load(body)
    if any(name.startswith(PREFIX) for name in tensors):
        _must_all_be_of_modules(tensors)
        called, (_, tensors) = IN_MODULE, _one(_by_module(tensors), module)
    else:
        called = ALONE
    tensors = {OLDER.get(name, name): tensor for name, tensor in tensors.items()}
    expected, called = _expected(tensors, called, spec)
    _must_be_those(set(tensors), {called[name] for name in expected}, spec)
    adapter = {name: _fitting(tensors[called[name]], called[name], shape, spec) for name, shape in expected.items()}
    return joined(adapter)


def modules(body: bytes | bytearray) -> list[str]:
    """The modules that a PEFT file adapts.

    Raises:
        BadSafetensors: for a file that the library refuses.
    """
    return list(_by_module(load(body)))


def only(body: bytes | bytearray, module: str | None = None) -> tuple[str, bytes]:
    """One module of a PEFT file, by default the only one, and a file of its tensors alone.

    Raises:
        BadSafetensors: for a file that the library refuses, or has no such module.
    """
    named, tensors = _one(_by_module(load(body)), module)
    return named, dump({f"{PREFIX}{named}.{name}": tensor for name, tensor in tensors.items()})


def shapes(spec: Spec, ranks: int) -> dict[str, tuple[int, ...]]:
    """The tensors that an adapter of this spec has, with so many ranks."""
    vectors = {"own_bias": spec.train_bias, "magnitude": spec.use_dora}
    own = {name: (spec.out_features,) for name, there in vectors.items() if there}
    return {"A": (ranks, spec.in_features), "B": (spec.out_features, ranks), **own}


def parted(adapter: Mapping[str, Array], rank: int) -> dict[str, Array]:
    """The adapter with its frozen ranks, those beyond `rank`, as what they began with: `A_init` and `B_init`."""
    A, B = adapter["A"], adapter["B"]
    if len(A) == rank:
        return dict(adapter)
    return {**adapter, "A": A[:rank], "B": B[:, :rank], "A_init": A[rank:], "B_init": -B[:, rank:]}


def joined(parts: Mapping[str, Array]) -> dict[str, Array]:
    """The adapter that `parted` gave."""
    adapter = {name: tensor for name, tensor in parts.items() if name not in STARTS}
    if "A_init" in parts:
        adapter["A"] = np.concatenate([parts["A"], parts["A_init"]])
        adapter["B"] = np.concatenate([parts["B"], -parts["B_init"]], axis=1)
    return adapter


def _expected(
    tensors: Tensors, called: dict[str, str], spec: Spec
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """The shapes that the tensors of a file must have, and what they are called there.

    Where the model has frozen ranks, these stand behind the others, as what they began with, or stay what they are.
    """
    A = tensors.get(called["A"])
    if not spec.frozen_rank or A is None or A.shape[:1] != (spec.rank,):
        return shapes(spec, spec.rank + spec.frozen_rank), called
    alone = shapes(spec, spec.rank)
    if called is ALONE and not tensors.keys().isdisjoint(STARTS.values()):
        return {**alone, "A_init": alone["A"], "B_init": alone["B"]}, {**called, **STARTS}
    return alone, called


def _by_module(tensors: Tensors) -> dict[str, Tensors]:
    """The tensors of each module's adapter, by what they are called within it."""
    found: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        if match := OF_A_MODULE.fullmatch(name):
            found.setdefault(match[1], {})[match[2]] = tensor
    return dict(sorted(found.items()))


def _must_all_be_of_modules(tensors: Tensors) -> None:
    for name in tensors:
        if not OF_A_MODULE.fullmatch(name):
            raise _bad(name, f"{cut(name, 80)} is not a tensor of a LoRA adapter, such as {PREFIX}linear.lora_A.weight")


def _one(modules: Mapping[str, Tensors], module: str | None) -> tuple[str, Tensors]:
    """The module that is asked for, with its tensors."""
    if module is None and len(modules) == 1:
        return next(iter(modules.items()))
    if module is None or module not in modules:
        listed = ", ".join(cut(each, 60) for each in list(modules)[:SHOWN]) + (", …" if len(modules) > SHOWN else "")
        what = "name one of them with module=" if module is None else f"{cut(module, 60)} is none of them"
        raise _bad("", f"the file has adapters of {len(modules)} modules ({listed}); {what}")
    return module, modules[module]


def _must_be_those(found: set[str], expected: set[str], spec: Spec) -> None:
    if missing := sorted(expected - found):
        raise _bad(missing[0], f"the file lacks {', '.join(missing)}, which this model has")
    if extra := sorted(found - expected):
        known = "; this model does not train its bias" if not spec.train_bias and extra[0].endswith("bias") else ""
        known = "; this model has use_dora false" if not spec.use_dora and extra[0] == ALONE["magnitude"] else known
        raise _bad(extra[0], f"the file holds {cut(', '.join(extra), 80)}, which this model does not have{known}")


def _fitting(tensor: NDArray[np.generic], name: str, shape: tuple[int, ...], spec: Spec) -> Array:
    if tensor.shape != shape:
        sizes = f"rank {spec.rank}, in_features {spec.in_features}, out_features {spec.out_features}"
        detail = f"{name} has shape {list(tensor.shape)}; it must be {list(shape)} for this model ({sizes})"
        raise ShapeMismatch(detail, Fault(pointer(name), detail))
    return finite(tensor, name)


def _bad(name: str, detail: str) -> BadSafetensors:
    return BadSafetensors(detail, Fault(pointer(cut(name, 60)) if name else "", detail))
