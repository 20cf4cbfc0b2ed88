"""PEFT's configuration says which model an adapter belongs to; what no model here can be is refused by name."""

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from peft.utils.other import get_pattern_key

from service.codecs.peft import config
from service.codecs.peft_settings import settings
from service.errors import Validation
from service.lora.spec import Spec

MODULE = "encoder.layer.1.output.dense"
LEAST = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
MODULES = st.lists(st.sampled_from(["a", "b", "fc", "q_proj", "0", "10"]), min_size=1, max_size=4).map(".".join)
PATTERNS = st.sampled_from(["fc", "q_proj", "a.fc", r".*\.0", "^a.fc", r"(a|b)\.fc", r"b\.\d+\.q_proj", "proj", "0"])


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """Any spec that PEFT can be told of, whose start is PEFT's own."""
    bias = draw(st.booleans())
    return Spec(
        in_features=draw(st.integers(8, 64)),
        out_features=draw(st.integers(8, 64)),
        rank=draw(st.integers(1, 8)),
        alpha=draw(st.none() | st.floats(1e-3, 1e6)),
        use_rslora=draw(st.booleans()),
        dropout=draw(st.floats(0, 0.99)),
        bias=bias,
        train_bias=bias and draw(st.booleans()),
    )


def peft_says(**fields: Any) -> dict[str, Any]:
    """Every field of a configuration, as PEFT writes it."""
    return LoraConfig(target_modules=["dense"], **fields).to_dict()


def refused(**fields: Any) -> Validation:
    with pytest.raises(Validation) as caught:
        settings({**LEAST, **fields}, MODULE)
    assert "\n" not in caught.value.detail
    return caught.value


@given(specs(), MODULES)
def test_what_a_spec_tells_peft_gives_back_the_spec(spec: Spec, module: str) -> None:
    again = replace(spec, **settings(config(spec, module), module))
    assert asdict(again) == asdict(spec)


def test_what_is_left_out_is_what_peft_takes_for_it() -> None:
    least = settings({"peft_type": "LORA"}, MODULE)
    assert least == settings(peft_says(), MODULE)
    assert least == {
        "rank": 8,
        "alpha": 8,
        "use_rslora": False,
        "use_dora": False,
        "init": "kaiming",
        "dropout": 0.0,
        "train_bias": False,
    }


@pytest.mark.parametrize(
    ("field", "value", "setting", "meant"),
    [
        ("r", 2, "rank", 2),
        ("lora_alpha", 1.5, "alpha", 1.5),
        ("use_rslora", True, "use_rslora", True),
        ("use_dora", True, "use_dora", True),
        ("lora_dropout", 0.1, "dropout", 0.1),
        ("bias", "lora_only", "train_bias", True),
        ("bias", "all", "train_bias", True),
        ("init_lora_weights", False, "init", "kaiming"),
        ("init_lora_weights", "gaussian", "init", "gaussian"),
        ("init_lora_weights", "orthogonal", "init", "orthogonal"),
        ("init_lora_weights", "pissa", "init", "pissa"),
        ("init_lora_weights", "pissa_niter_16", "init", "pissa"),
        ("init_lora_weights", "olora", "init", "olora"),
    ],
)
def test_a_field_of_peft_is_a_setting_of_a_model(field: str, value: Any, setting: str, meant: Any) -> None:
    plain = settings(peft_says(), MODULE)
    assert settings(peft_says(**{field: value}), MODULE) == {**plain, setting: meant}


@given(MODULES, st.dictionaries(PATTERNS, st.integers(1, 64), max_size=4))
def test_a_pattern_is_for_the_modules_that_peft_takes_it_for(module: str, patterns: dict[str, int]) -> None:
    expected = patterns.get(get_pattern_key(patterns, module), 4)
    found = settings({**LEAST, "rank_pattern": patterns, "alpha_pattern": patterns}, module)
    assert (found["rank"], found["alpha"]) == (expected, patterns.get(get_pattern_key(patterns, module), 8))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fan_in_fan_out", True),
        ("lora_bias", True),
        ("modules_to_save", ["head"]),
        ("exclude_modules", ["head"]),
        ("layer_replication", [[0, 4], [2, 5]]),
        ("trainable_token_indices", [1, 2]),
        ("target_parameters", ["experts.weight"]),
        ("use_qalora", True),
        ("loftq_config", {"loftq_bits": 4}),
        ("alora_invocation_tokens", [1]),
        ("a_field_of_tomorrow", "on"),
        ("a_field_of_tomorrow", 0),
    ],
)
def test_what_no_model_here_can_be_is_refused_by_name(field: str, value: Any) -> None:
    error = refused(**{field: value})
    assert error.detail.startswith(f"{field} is ")
    assert [fault.pointer for fault in error.faults] == [f"/{field}"]


@pytest.mark.parametrize(
    "value", ["loftq", "eva", "corda", "pissa_niter_", "pissa_niter_x", "normal", 1, None, ["pissa"]]
)
def test_a_start_that_is_not_known_is_refused(value: Any) -> None:
    detail = refused(init_lora_weights=value).detail
    assert detail.endswith('it must be one of true, false, "gaussian", "orthogonal", "pissa", "olora"')


@pytest.mark.parametrize("value", ["some", True, None, {}])
def test_a_bias_that_is_not_known_is_refused(value: Any) -> None:
    assert refused(bias=value).detail.endswith('it must be one of "none", "lora_only", "all"')


@pytest.mark.parametrize("value", ["LOHA", None, 1])
def test_an_adapter_that_is_not_lora_is_refused(value: Any) -> None:
    assert refused(peft_type=value).detail.endswith('it must be "LORA"')


def test_a_file_that_holds_no_object_is_no_adapter() -> None:
    with pytest.raises(Validation, match="peft_type is null"):
        settings([], MODULE)  # type: ignore[arg-type]


def test_a_pattern_that_is_none_is_refused() -> None:
    assert "is no regular expression" in refused(rank_pattern={"(": 4}).detail
    assert refused(alpha_pattern=[4]).detail == "alpha_pattern is a list of 1; it must be an object of patterns"


def test_no_pattern_may_be_written_as_null() -> None:
    assert settings({**LEAST, "rank_pattern": None}, MODULE)["rank"] == 4
