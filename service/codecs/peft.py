"""The two files of a PEFT adapter: what it is, and its tensors under PEFT's names for one module of a network."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bounds import cut
from service.codecs.codec import Array, finite
from service.codecs.safetensors import Tensors, dump, load
from service.errors import BadSafetensors, Fault, ShapeMismatch, pointer
from service.lora.names import by_layer, named
from service.lora.spec import AnySpec, Spec

PREFIX = "base_model.model."
# What an adapter's tensors are called in a file without a module, and behind the module's name.
ALONE = {"A": "lora_A.weight", "B": "lora_B.weight", "own_bias": "bias", "magnitude": "lora_magnitude_vector"}
IN_MODULE = {**ALONE, "own_bias": "base_layer.bias"}
# What the frozen ranks of an adapter began with, where they stand by themselves: B with its own sign.
STARTS = {"A_init": "lora_A_init.weight", "B_init": "lora_B_init.weight"}
OLDER = "lora_magnitude_vector.weight"  # as peft calls a magnitude within a model
MODULE = r"^\w+(\.\w+)*$"
OF_A_MODULE = re.compile(rf"{re.escape(PREFIX)}(\w+(?:\.\w+)*)\.((?:lora_|base_layer\.).+)")
DEFAULT_MODULE, DEFAULT_CHAIN = "linear", "layers"
SHOWN = 10  # modules that are listed in an error


def config(spec: AnySpec, module: str | None = None) -> dict[str, Any]:
    """`adapter_config.json`, with which `PeftModel.from_pretrained` puts the adapter on a module.

    The layers of a chain are the modules 0, 1 … within it. Frozen ranks count as ranks, as in PEFT's own conversion of
    such a start, so the base stays what it is there too.
    """
    names = names_of(spec, module)
    ranks = {name: layer.rank + layer.frozen_rank for name, layer in zip(names, spec.layers, strict=True)}
    alphas = {name: _alpha(layer) for name, layer in zip(names, spec.layers, strict=True)}
    first = spec.layers[0]
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        "task_type": None,
        "inference_mode": True,
        "target_modules": names,
        "r": ranks[names[0]],
        "lora_alpha": alphas[names[0]],
        "lora_dropout": first.dropout,
        "use_rslora": first.use_rslora,
        "use_dora": first.use_dora,
        "bias": "lora_only" if first.train_bias else "none",
        "init_lora_weights": True,
        "fan_in_fan_out": False,
        "rank_pattern": {name: ranks[name] for name in names if ranks[name] != ranks[names[0]]},
        "alpha_pattern": {name: alphas[name] for name in names if alphas[name] != alphas[names[0]]},
    }


def _alpha(spec: Spec) -> int | float:
    """The alpha that gives all ranks, the frozen ones too, the scaling of those that are trained."""
    wider: float = (spec.rank + spec.frozen_rank) / spec.rank
    alpha = float(spec.alpha or 0) * (wider**0.5 if spec.use_rslora else wider)
    return int(alpha) if alpha.is_integer() else alpha


def names_of(spec: AnySpec, module: str | None) -> list[str]:
    """The modules of a network that a model's layers are: `module`, or of a chain those within it."""
    if len(spec.layers) == 1:
        return [module or DEFAULT_MODULE]
    return [f"{module or DEFAULT_CHAIN}.{place}" for place in range(len(spec.layers))]


def dumped(adapter: Mapping[str, NDArray[Any]], spec: AnySpec, module: str | None = None) -> bytes:
    """`adapter_model.safetensors`, as PEFT itself writes it."""
    parts = zip(names_of(spec, module), by_layer(adapter, len(spec.layers)), strict=True)
    return dump(
        {f"{PREFIX}{within}.{IN_MODULE[name]}": tensor for within, part in parts for name, tensor in part.items()}
    )


def loaded(body: bytes | bytearray, spec: AnySpec, module: str | None = None) -> dict[str, Array]:
    """The adapter in a file, for a model of this spec; nothing may be missing and nothing left over.

    Args:
        module: which one to take, where the file has several; for a chain, the one that has its layers within.

    Raises:
        BadSafetensors: for a file that the library refuses, or other tensors than the model has.
        ShapeMismatch, NonFinite
    """
    tensors, called = load(body), ALONE
    if any(name.startswith(PREFIX) for name in tensors):
        _must_all_be_of_modules(tensors)
        found = _by_module(tensors)
        several = len(spec.layers) > 1
        tensors = named(_several(found, module, len(spec.layers)) if several else [_one(found, module)[1]])
        called = IN_MODULE
    tensors = {name.removesuffix(".weight") if OLDER in name else name: tensor for name, tensor in tensors.items()}
    parts = by_layer(tensors, len(spec.layers))
    expected = named([_expected(part, called, layer) for part, layer in zip(parts, spec.layers, strict=True)])
    _must_be_those(set(tensors), {_at(place, text) for place, (text, _, _) in expected.items()}, spec)
    adapter = {
        place: _fitting(tensors[_at(place, text)], _at(place, text), shape, layer)
        for place, (text, shape, layer) in expected.items()
    }
    return named([joined(part) for part in by_layer(adapter, len(spec.layers))])


def _at(place: str, text: str) -> str:
    """A tensor's name in a file, beside its layer's place where it has one."""
    layer, dot, _ = place.rpartition(".")
    return f"{layer}{dot}{text}"


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


def chain(body: bytes | bytearray, modules: Sequence[str] | None, count: int | None) -> tuple[list[str], bytes]:
    """Several modules of a PEFT file, by default all of them, and a file in which they are the layers of a chain.

    Raises:
        BadSafetensors: for a file that the library refuses, has no such modules, or not so many.
    """
    found = _by_module(load(body))
    names = list(found) if modules is None else list(modules)
    if count not in (None, len(names)):
        listed = ", ".join(cut(each, 60) for each in names[:SHOWN])
        raise _bad(
            "", f"the file has adapters of {len(names)} modules ({listed}) for the {count} layers that are given"
        )
    within = f"{PREFIX}{DEFAULT_CHAIN}"
    parts = {f"{within}.{place}": _one(found, name)[1] for place, name in enumerate(names)}
    return names, dump({f"{layer}.{name}": tensor for layer, part in parts.items() for name, tensor in part.items()})


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


def _expected(tensors: Tensors, called: Mapping[str, str], spec: Spec) -> dict[str, tuple[str, tuple[int, ...], Spec]]:
    """The tensors that a layer's part of a file must have: by name, what it is called there, its shape, and the layer.

    Where the layer has frozen ranks, these stand behind the others, as what they began with, or stay what they are.
    """
    A, given = tensors.get(called["A"]), shapes(spec, spec.rank + spec.frozen_rank)
    if spec.frozen_rank and A is not None and A.shape[:1] == (spec.rank,):
        given = shapes(spec, spec.rank)
        if called is ALONE and not tensors.keys().isdisjoint(STARTS.values()):
            given |= {"A_init": given["A"], "B_init": given["B"]}
    return {name: ({**called, **STARTS}[name], shape, spec) for name, shape in given.items()}


def _several(modules: Mapping[str, Tensors], module: str | None, count: int) -> list[Tensors]:
    """The layers of a chain: the modules within one that have numbers for names, in their order."""
    numbered = {
        int(number): tensors
        for name, tensors in modules.items()
        for within, _, number in [name.rpartition(".")]
        if number.isdecimal() and module in (None, within)
    }
    if len(numbered) != count or (module is None and len(modules) != count):
        listed = ", ".join(cut(each, 60) for each in list(modules)[:SHOWN])
        what = "" if module is None else f" within {cut(module, 60)}"
        raise _bad("", f"the file has {len(numbered)} numbered modules{what} ({listed}); the model has {count} layers")
    return [numbered[number] for number in sorted(numbered)]


def _by_module(tensors: Tensors) -> dict[str, Tensors]:
    """The tensors of each module's adapter, by what they are called within it; layer 10 comes after layer 9."""
    found: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        if match := OF_A_MODULE.fullmatch(name):
            found.setdefault(match[1], {})[match[2]] = tensor
    return {name: found[name] for name in sorted(found, key=_place)}


def _place(module: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in module.split(".")]


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
        what = "name one of them as module" if module is None else f"{cut(module, 60)} is none of them"
        raise _bad("", f"the file has adapters of {len(modules)} modules ({listed}); {what}")
    return module, modules[module]


def _must_be_those(found: set[str], expected: set[str], spec: AnySpec) -> None:
    if missing := sorted(expected - found):
        raise _bad(missing[0], f"the file lacks {', '.join(missing)}, which this model has")
    if extra := sorted(found - expected):
        known = "; this model does not train its bias" if not spec.train_bias and extra[0].endswith("bias") else ""
        known = (
            "; this model has use_dora false" if not spec.use_dora and extra[0].endswith(ALONE["magnitude"]) else known
        )
        raise _bad(extra[0], f"the file holds {cut(', '.join(extra), 80)}, which this model does not have{known}")


def _fitting(tensor: NDArray[np.generic], name: str, shape: tuple[int, ...], spec: Spec) -> Array:
    if tensor.shape != shape:
        sizes = f"rank {spec.rank}, in_features {spec.in_features}, out_features {spec.out_features}"
        detail = f"{name} has shape {list(tensor.shape)}; it must be {list(shape)} for this model ({sizes})"
        raise ShapeMismatch(detail, Fault(pointer(name), detail))
    return finite(tensor, name)


def _bad(name: str, detail: str) -> BadSafetensors:
    return BadSafetensors(detail, Fault(pointer(cut(name, 60)) if name else "", detail))
