"""Layers that are computed again in the backward pass change no bit of a loss or a gradient, and less is kept."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smolt.config import LoRA
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import Groups
from smolt.models.locating import locate
from smolt.models.roles import Policy, open_policy
from smolt.training.memory.footprint import attention, layer_token
from smolt.training.memory.shapes import empty_network, shape_of, short_keys, sizes, way_of
from smolt.training.offline import sft_loss
from tests import tiny_models
from tests.invariance.conftest import Models
from tests.invariance.test_micro_batches import CASES, answers_to
from tests.training.test_footprint import Kept, pairs

TOLD = "told to by a test"
DROPPING = LoRA(rank=4, alpha=8.0, dropout=0.3)


def policy_of(folder: Path, dtype: str, lora: LoRA | None) -> Policy:
    policy = open_policy(locate(str(folder)), choose_precision("cpu", dtype), lora, 0)
    tiny_models.shake(policy, width=0.05)
    return policy


def loss_and_gradients(policy: Policy, groups: Groups, recomputed: str) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Of a weighted sum of log-probabilities and entropies, dropout drawn from seed 5; and the next random number."""
    policy.trunk.recomputed = recomputed
    for parameter in policy.parameters().values():
        parameter.grad = None
    torch.manual_seed(5)
    logprobs, entropy = policy(groups, 0.8)
    loss = (logprobs * torch.linspace(-1, 1, logprobs.numel()).view(logprobs.shape)).sum() + 0.1 * entropy.sum()
    loss.backward()
    gradients = {name: value.grad for name, value in policy.parameters().items() if value.grad is not None}
    return loss.detach(), gradients, torch.rand(1)


@pytest.mark.parametrize("lora", [None, DROPPING], ids=["full", "dropout"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("architecture", tiny_models.CONFIGURATIONS)
def test_no_bit_changes(architecture: str, dtype: str, lora: LoRA | None, models: Models) -> None:
    """Every forward: fused, through the modules, padded with our head and with the network's own."""
    policy, groups = policy_of(models(architecture), dtype, lora), answers_to(4, 2)
    loss, gradients, after = loss_and_gradients(policy, groups, "")
    again, recomputed, later = loss_and_gradients(policy, groups, TOLD)
    assert torch.equal(again, loss)
    assert torch.equal(later, after)
    assert recomputed.keys() == gradients.keys()
    assert all(bool(value.any()) for value in gradients.values())
    assert all(torch.equal(recomputed[name], gradients[name]) for name in gradients)


def test_dropout_is_at_work_above(models: Models) -> None:
    """The control: another seed gives another loss, so equal masks are what makes them equal."""
    policy, groups = policy_of(models("llama"), "fp32", DROPPING), answers_to(4, 2)
    losses = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        losses.append(float(policy(groups)[0].sum().detach()))
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize("lora", [True, False], ids=["adapter", "full"])
@pytest.mark.parametrize("algorithm", CASES)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neo"])
def test_no_bit_of_an_update_changes(
    architecture: str, algorithm: str, lora: bool, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each algorithm, PPO's actor and critic on one trunk among them, cut at 40 tokens: gradients, norms, metrics."""
    case = CASES[algorithm](models(architecture), lora)
    gradients, norms, metrics = case.step(40)
    monkeypatch.setattr("smolt.models.forward.trunk.Trunk.recomputed", TOLD)
    again, *figures = case.step(40)
    assert figures == [norms, metrics]
    assert again.keys() == gradients.keys()
    assert all(torch.equal(again[name], gradients[name]) for name in gradients)


def kept(policy: Policy, groups: Groups, recomputed: str) -> int:
    """Bytes that autograd keeps of a forward pass."""
    policy.trunk.recomputed = recomputed
    counted = Kept(policy.trunk.network)
    with torch.autograd.graph.saved_tensors_hooks(counted.pack, lambda tensor: tensor):
        held = list(sft_loss(policy)(groups))
    assert held
    return counted.bytes


@pytest.mark.parametrize("architecture", [*tiny_models.PACKED, "gpt_neo"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("lora", [None, LoRA(rank=4)], ids=["full", "adapter"])
def test_autograd_keeps_the_inputs_of_the_layers(
    architecture: str, dtype: str, lora: LoRA | None, models: Models
) -> None:
    """Within 30 % of what the estimate counts: inputs, and the states at the ends, at this width not small."""
    located, precision = locate(str(models(architecture))), choose_precision("cpu", dtype)
    policy = open_policy(located, precision, lora, 0)
    network, way = shape_of(empty_network(located)), replace(way_of(precision, lora), recomputed=True)
    assert network is not None
    groups = pairs()
    batch = sizes(groups, policy.trunk.micro_tokens(4.0), short_keys(way))
    expected = network.width * way.state * (network.layers * batch.tokens + batch.tokens + 2 * batch.predicted)
    found = kept(policy, groups, TOLD)
    assert found == pytest.approx(expected, rel=0.3)
    inside = layer_token(network, way) * batch.tokens + attention(network, way, batch)
    assert kept(policy, groups, "") - found == pytest.approx(network.layers * inside, rel=0.3)


def test_without_gradients_nothing_is_kept_or_recomputed(models: Models) -> None:
    """A reference's forward, or a rollout's, is the same with and without, and the modules are as before."""
    for architecture in ("llama", "gpt2"):
        policy, groups = tiny_models.open_full(models(architecture)), answers_to(3, 2)
        with torch.no_grad():
            plain = policy(groups)[0]
            policy.trunk.recomputed = TOLD
            assert torch.equal(policy(groups)[0], plain)
        policy(groups)
        assert not any("forward" in vars(module) for module in policy.trunk.network.modules())
