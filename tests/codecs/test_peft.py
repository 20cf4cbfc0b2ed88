"""The file of a whole network's adapters is opened one module at a time."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from safetensors.torch import save as save_torch

from service.codecs.peft import chain, dumped, loaded, modules, only
from service.errors import BadSafetensors
from service.lora.spec import Spec

SPEC = Spec(in_features=6, out_features=5, rank=2, train_bias=True)
NAMES = ["encoder", "encoder.0.fc", "encoder.1.fc"]


def adapter(number: int) -> dict[str, np.ndarray]:
    """An adapter that is full of one number."""
    shapes = {"A": (2, 6), "B": (5, 2), "own_bias": (5,)}
    return {name: np.full(shape, number, np.float32) for name, shape in shapes.items()}


def whole() -> dict[str, np.ndarray]:
    """The tensors of three modules, one of them within another's name."""
    return {
        name: tensor
        for number, module in enumerate(NAMES)
        for name, tensor in load(dumped(adapter(number), SPEC, module)).items()
    }


def test_every_module_is_listed():
    assert modules(save(whole())) == NAMES
    assert modules(save({"lora_A.weight": np.ones((2, 6), np.float32)})) == []


@pytest.mark.parametrize(("number", "module"), list(enumerate(NAMES)))
def test_one_module_is_taken_as_peft_would_have_saved_it_alone(number, module):
    assert only(save(whole()), module) == (module, dumped(adapter(number), SPEC, module))


def test_where_there_is_one_module_it_needs_no_name():
    name, body = only(dumped(adapter(3), SPEC, "fc"))
    assert name == "fc"
    assert (loaded(body, SPEC)["A"] == 3).all()


def test_the_biases_that_peft_trains_in_other_modules_stay_behind():
    others = {"base_model.model.norm.bias": np.ones(5, np.float32)}
    assert only(save({**whole(), **others}), "encoder.0.fc")[1] == only(save(whole()), "encoder.0.fc")[1]


def test_bfloat16_is_taken_as_the_numbers_that_it_has():
    tensor = torch.randn(2, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    _, body = only(save_torch({"base_model.model.fc.lora_A.weight": tensor}))
    assert np.array_equal(load(body)["base_model.model.fc.lora_A.weight"], tensor.float().numpy())


def test_a_module_that_is_not_there_and_none_where_there_are_several_are_refused_with_a_list():
    with pytest.raises(BadSafetensors, match=r"3 modules \(encoder, encoder.0.fc, encoder.1.fc\); decoder is none"):
        only(save(whole()), "decoder")
    with pytest.raises(BadSafetensors, match="name one of them as module"):
        only(save(whole()))
    with pytest.raises(BadSafetensors, match="adapters of 0 modules"):
        only(save({}))


def test_several_modules_become_the_layers_of_a_chain():
    names, body = chain(save(whole()), ["encoder.1.fc", "encoder"], 2)
    assert names == ["encoder.1.fc", "encoder"]
    assert modules(body) == ["layers.0", "layers.1"]
    assert (load(body)["base_model.model.layers.0.lora_A.weight"] == 2).all()
    assert (load(body)["base_model.model.layers.1.lora_A.weight"] == 0).all()
    assert chain(save(whole()), None, None)[0] == NAMES
    with pytest.raises(BadSafetensors, match=r"adapters of 3 modules .* for the 2 layers"):
        chain(save(whole()), None, 2)


def test_modules_are_in_the_order_of_their_numbers():
    tensor = np.ones((2, 6), np.float32)
    names = [f"base_model.model.layers.{place}.fc.lora_A.weight" for place in (10, 9, 0)]
    assert modules(save(dict.fromkeys(names, tensor))) == ["layers.0.fc", "layers.9.fc", "layers.10.fc"]
