"""What a PEFT adapter's `adapter_config.json` asks of a model, or why no model here can be that."""

import re
from collections.abc import Mapping
from typing import Any

from service.bounds import shown
from service.lora.spec import refuse

# PEFT's defaults, for what a configuration leaves out.
DEFAULTS: dict[str, Any] = {
    "r": 8,
    "lora_alpha": 8,
    "use_rslora": False,
    "use_dora": False,
    "lora_dropout": 0.0,
    "bias": "none",
    "init_lora_weights": True,
    "rank_pattern": {},
    "alpha_pattern": {},
}
# Where an adapter comes from and which modules it is for: its file of tensors says that better.
ELSEWHERE = {
    "peft_type",
    "peft_version",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "target_modules",
    "layers_to_transform",
    "layers_pattern",
    "megatron_core",
    "qalora_group_size",
}
# PEFT's names of a trained bias. With "all" those of other modules are trained too, and stay behind.
TRAIN_BIAS = {"none": False, "lora_only": True, "all": True}
# True and False start from numbers that the adapter's own replace. What pissa and olora take off the base stays off.
INITS = {
    True: "kaiming",
    False: "kaiming",
    "gaussian": "gaussian",
    "orthogonal": "orthogonal",
    "pissa": "pissa",
    "olora": "olora",
}


def settings(config: Mapping[str, Any], module: str) -> dict[str, Any]:
    """The fields of `POST /models` for the adapter of one module; whoever makes the model checks their values.

    Raises:
        Validation: for what no model here can be, such as a weight that is stored the other way round.
    """
    kind = config.get("peft_type") if isinstance(config, Mapping) else None
    if kind != "LORA":
        refuse("peft_type", f'peft_type is {shown(kind)}; it must be "LORA"')
    for name, value in config.items():
        if name not in DEFAULTS and name not in ELSEWHERE and not _off(value):
            refuse(name, f"{name} is {shown(value)}; an adapter with {name} cannot be a model here")
    asked = {**DEFAULTS, **config}
    return {
        "rank": _for_module(asked, "rank_pattern", module, asked["r"]),
        "alpha": _for_module(asked, "alpha_pattern", module, asked["lora_alpha"]),
        "use_rslora": asked["use_rslora"],
        "use_dora": asked["use_dora"],
        "init": _chosen(asked, "init_lora_weights", INITS),
        "dropout": asked["lora_dropout"],
        "train_bias": _chosen(asked, "bias", TRAIN_BIAS),
    }


def _off(value: Any) -> bool:
    """Whether a setting is as if it were not there."""
    return value is None or value is False or value == {} or value == []


def _for_module(asked: Mapping[str, Any], name: str, module: str, otherwise: Any) -> Any:
    """What the first pattern says that matches the end of the module's path, as PEFT has it."""
    patterns = asked[name] or {}
    if not isinstance(patterns, Mapping):
        refuse(name, f"{name} is {shown(patterns)}; it must be an object of patterns")
    for pattern, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            refuse(name, f"{name} has {shown(pattern)}, which is no regular expression: {error}")
    return otherwise


def _chosen(asked: Mapping[str, Any], name: str, choices: Mapping[Any, Any]) -> Any:
    """What a word of PEFT's stands for; `pissa_niter_4` is a quicker way to `pissa`."""
    value = asked[name]
    word = re.sub(r"^pissa_niter_\d+$", "pissa", value) if isinstance(value, str) else value
    if not isinstance(word, str | bool) or word not in choices:
        refuse(name, f"{name} is {shown(value)}; it must be one of {', '.join(map(shown, choices))}")
    return choices[word]
