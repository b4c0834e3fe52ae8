"""A linear layer with its adapter in one function: the values and gradients of peft's module."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from smolt.models.forward.packed_forward import adapted, project
from smolt.models.forward.quiet import hushed

SHAPE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}


def module(bias: bool = False, **settings: Any) -> tuple[Any, Any]:
    """A peft model with a trained adapter on gate_proj, and that layer."""
    torch.manual_seed(0)
    network = LlamaForCausalLM(LlamaConfig(vocab_size=11, mlp_bias=bias, **SHAPE)).requires_grad_(False)
    with hushed():
        peft: Any = PeftModel(network, LoraConfig(r=3, lora_alpha=12, target_modules=["gate_proj"], **settings))
    layer: Any = network.model.layers[0].mlp.gate_proj
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "lora_B" in name or "bias" in name:
                parameter.normal_()
    return peft, layer


def results(layer: nn.Module, ours: bool) -> list[Tensor]:
    """The output for fixed states, and the gradients of states and adapter for a fixed weighing of it."""
    states = torch.linspace(-1, 1, 7 * 16).view(7, 16).sin().requires_grad_()
    torch.manual_seed(1)
    output = project(layer, states) if ours else layer(states)
    weighed = (output * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum()
    learned = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(weighed, [states, *learned], allow_unused=True)
    return [output.detach(), *(torch.zeros(1) if gradient is None else gradient for gradient in gradients)]


def test_by_hand() -> None:
    """x (1, 2), W = A = (1, 1), b 0.5, B 3, s 2: 3 + 0.5 + 2 * 3 * 3 = 21.5; dx = 1 + 6, dA = 6 x, dB = 2 * 3."""
    states, weight = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.ones(1, 2)
    down, up = torch.ones(1, 2, requires_grad=True), torch.full((1, 1), 3.0, requires_grad=True)
    output = adapted(states, weight, torch.tensor([0.5]), down, up, 2.0)
    assert output.item() == 21.5
    gradients = torch.autograd.grad(output.sum(), [states, down, up])
    assert [gradient.flatten().tolist() for gradient in gradients] == [[7.0, 7.0], [6.0, 12.0], [6.0]]


@pytest.mark.parametrize(
    "settings", [{}, {"bias": True}, {"lora_dropout": 0.5}, {"use_dora": True}, {"use_rslora": True}], ids=str
)
@pytest.mark.parametrize("training", [False, True])
def test_the_modules_values_and_gradients(settings: dict[str, Any], training: bool) -> None:
    """fp32, to 1e-5; with dropout at work the same draws; with weights that are decomposed too."""
    _, layer = module(**settings)
    layer.train(training)
    for found, expected in zip(results(layer, True), results(layer, False), strict=True):
        assert float((found - expected).abs().max()) <= 1e-5


def test_switched_off_it_is_the_layer_below() -> None:
    """Equal bit for bit to the frozen layer, and the adapter gets no gradient."""
    peft, layer = module()
    peft.base_model.disable_adapter_layers()
    states = torch.randn(5, 16)
    assert torch.equal(project(layer, states), layer.base_layer(states))
    assert not project(layer, states).requires_grad


def test_the_adapter_that_is_switched_on_is_used() -> None:
    """Of two, each in turn, to 1e-6; with an adapter that leaves this layer alone, the layer below."""
    peft, layer = module()
    peft.add_adapter("second", LoraConfig(r=2, target_modules=["gate_proj"], init_lora_weights=False))
    peft.add_adapter("elsewhere", LoraConfig(r=2, target_modules=["up_proj"]))
    states = torch.randn(5, 16)
    found = {}
    for name in ("default", "second", "elsewhere"):
        peft.base_model.set_adapter(name)
        found[name] = project(layer, states)
        assert torch.allclose(found[name], layer(states), atol=1e-6)
    assert torch.equal(found["elsewhere"], layer.base_layer(states))
    assert not torch.allclose(found["default"], found["second"])


def test_in_half_precision_it_is_no_further_from_the_truth_than_the_module() -> None:
    """bf16 layer, fp32 adapter under autocast: every value and gradient, against the same in fp32."""
    _, layer = module()
    exact = results(layer, True)
    layer.base_layer.bfloat16()

    def rounded(ours: bool) -> list[Tensor]:
        states = torch.linspace(-1, 1, 7 * 16).view(7, 16).sin().bfloat16().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = project(layer, states) if ours else layer(states)
        weighed = (output * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum()
        learned = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        return [output.detach(), *torch.autograd.grad(weighed, [states, *learned])]

    for ours, theirs, truth in zip(rounded(True), rounded(False), exact, strict=True):
        assert float((ours - truth).norm()) <= 1.1 * float((theirs - truth).norm())
        assert ours.dtype == theirs.dtype
