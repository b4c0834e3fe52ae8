"""Several roles on one trunk: each keeps its gradients, and the reference stays the policy of step 0."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smolt.config import LoRA, Optim
from smolt.errors import SelfCheckError, UserError
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import Groups, from_answers
from smolt.models.locating import locate
from smolt.models.roles import CRITIC, REFERENCE, Policy, Scorer, open_policy, score_head
from smolt.models.saving import save_adapter
from smolt.training.checks import same_policy
from smolt.training.fit import Learner, Loss, accumulate
from smolt.training.optimizers.parameter_groups import Role
from tests import tiny_models
from tests.invariance.conftest import Models
from tests.tiny_models import apart

BOTH_WAYS = pytest.mark.usefixtures("kept_or_recomputed")
LORA = LoRA(rank=4, alpha=8.0)
GROUPS = from_answers([[3, 4, 5], [6, 7]], [[[8, 9, 0], [10]], [[11, 12, 13, 14]]])


def logprobs(policy: Policy, groups: Groups = GROUPS) -> Tensor:
    with torch.no_grad():
        return policy(groups)[0]


def actor_and_critic(folder: Path) -> tuple[Policy, Scorer]:
    """Two trained adapters on one trunk, neither of them zero."""
    policy = tiny_models.open_adapted(folder)
    policy.trunk.add_adapter(CRITIC, LORA)
    policy.trunk.train_adapter(CRITIC)
    critic = Scorer(policy.trunk, CRITIC, score_head(policy.trunk.width, 7, torch.device("cpu")))
    tiny_models.shake(policy)
    tiny_models.shake(critic, seed=2)
    return policy, critic


def gradients(role: Policy | Scorer) -> dict[str, Tensor]:
    """The gradients a role has, taken away from it."""
    found = {name: value.grad.clone() for name, value in role.parameters().items() if value.grad is not None}
    for parameter in role.parameters().values():
        parameter.grad = None
    return found


def train(policy: Policy, steps: int = 3) -> None:
    """A few AdamW steps that raise the answers' log-probabilities."""
    optimizer = torch.optim.AdamW(policy.parameters().values(), lr=1e-2)
    for _ in range(steps):
        (-policy(GROUPS)[0].sum()).backward()
        optimizer.step()
        optimizer.zero_grad()


def adapter_of(policy: Policy, base: Path, folder: Path) -> Path:
    """The policy's adapter as a directory that names its base."""
    folder.mkdir()
    save_adapter(policy.trunk, str(policy.adapter), folder, {})
    assert locate(str(folder)).base == str(base.resolve())
    return folder


def continued(models: Models, folder: Path) -> Policy:
    """A policy that continues a trained adapter."""
    start = tiny_models.open_adapted(models("llama"))
    tiny_models.shake(start)
    directory = adapter_of(start, models("llama"), folder / "adapter")
    return open_policy(locate(str(directory)), choose_precision("cpu", "fp32"), LORA, 0)


# --- gradients (traps 29 and 31) --------------------------------------------------------------------------------------


@BOTH_WAYS
@pytest.mark.parametrize("architecture", ["llama", "gpt_neo"])
def test_a_critic_after_the_policy_leaves_both_gradients(architecture: str, models: Models) -> None:
    """Policy backward, critic forward and backward: each gradient is bit-equal to the one it gets alone (trap 29)."""
    policy, critic = actor_and_critic(models(architecture))
    policy(GROUPS)[0].sum().backward()
    actor_alone = gradients(policy)
    critic.values(GROUPS).sum().backward()
    critic_alone = gradients(critic)
    policy(GROUPS)[0].sum().backward()
    critic.values(GROUPS).sum().backward()
    actor_both, critic_both = gradients(policy), gradients(critic)
    assert actor_both.keys() == actor_alone.keys() == policy.parameters().keys()
    assert critic_both.keys() == critic_alone.keys() == critic.parameters().keys()
    assert all(bool(value.any()) for value in [*actor_both.values(), *critic_both.values()])
    assert all(torch.equal(actor_both[name], actor_alone[name]) for name in actor_both)
    assert all(torch.equal(critic_both[name], critic_alone[name]) for name in critic_both)


def test_one_backward_after_both_forwards_loses_nothing(models: Models) -> None:
    """Switching to the critic must not turn the policy's gradients off: peft does, and autograd then drops them."""
    policy, critic = actor_and_critic(models("llama"))
    policy(GROUPS)[0].sum().backward()
    actor_alone = gradients(policy)
    (policy(GROUPS)[0].sum() + critic.values(GROUPS).sum()).backward()
    together = gradients(policy)
    assert together.keys() == actor_alone.keys()
    assert all(torch.equal(together[name], actor_alone[name]) for name in together)
    assert gradients(critic).keys() == critic.parameters().keys()


def test_recomputed_layers_refuse_another_adapter(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """One backward pass after both forwards would compute the policy's layers again with the critic's adapter."""
    monkeypatch.setattr("smolt.models.forward.trunk.Trunk.recomputed", "told to by a test")
    policy, critic = actor_and_critic(models("llama"))
    both = policy(GROUPS)[0].sum() + critic.values(GROUPS).sum()
    with pytest.raises(RuntimeError, match="must come before another role's forward"):
        both.backward()


@BOTH_WAYS
def test_every_role_goes_backward_before_the_next_goes_forward(models: Models) -> None:
    """`accumulate` sends a role's loss backward before it asks for the next one: seen from inside the loss."""
    policy, critic = actor_and_critic(models("llama"))
    seen: list[bool] = []

    def loss(batch: Groups) -> Iterator[Loss]:
        yield Loss(policy(batch)[0].sum(), 1.0)
        seen.append(all(value.grad is not None for value in policy.parameters().values()))
        yield Loss(critic.values(batch).sum(), 1.0, role="critic")

    _, counts = accumulate(GROUPS, loss, 10**9)
    assert seen == [True]
    assert counts == {"policy": 1.0, "critic": 1.0}
    assert gradients(policy).keys() == policy.parameters().keys()
    assert gradients(critic).keys() == critic.parameters().keys()


@BOTH_WAYS
def test_a_step_of_the_critic_alone_leaves_the_policy(models: Models) -> None:
    """In a warm-up update only the critic's adapter and head move; the policy's bits stay."""
    policy, critic = actor_and_critic(models("llama"))
    learner = Learner({"policy": Role(policy.parameters()), "critic": Role(critic.parameters())}, Optim(lr=1e-2), 10)
    before = {name: value.clone() for name, value in learner.weights().items()}

    def loss(batch: Groups) -> Iterator[Loss]:
        yield Loss(policy(batch)[0].sum(), 1.0)
        yield Loss(critic.values(batch).sum(), 1.0, role="critic")

    _, counts = accumulate(GROUPS, loss, 10**9)
    learner.step(learner.divide(counts), 0, frozenset({"critic"}))
    moved = {name.split("/")[0] for name, value in learner.weights().items() if not torch.equal(value, before[name])}
    assert moved == {"critic"}
    assert not gradients(policy)


@BOTH_WAYS
def test_the_trunk_gets_no_gradient_under_an_adapter(models: Models) -> None:
    """Only the two adapters and the head are trained; every other weight has no gradient."""
    policy, critic = actor_and_critic(models("llama"))
    policy(GROUPS)[0].sum().backward()
    critic.values(GROUPS).sum().backward()
    rest = [value for name, value in policy.trunk.network.named_parameters() if "lora_" not in name]
    assert rest
    assert all(value.grad is None and not value.requires_grad for value in rest)


# --- references (trap 11) ---------------------------------------------------------------------------------------------


def test_adapter_off_is_the_base(models: Models) -> None:
    """The bare trunk under a trained adapter gives bit for bit what the base model gives without peft."""
    adapted = tiny_models.open_adapted(models("llama"))
    tiny_models.shake(adapted)
    base = tiny_models.open_full(models("llama"))
    assert apart(logprobs(adapted), logprobs(base)) > 0.1
    assert torch.equal(logprobs(Policy(adapted.trunk, None)), logprobs(base))


def test_a_fresh_adapter_starts_as_its_reference(models: Models) -> None:
    """log pi - log ref = 0 at step 0, and the reference needs no second adapter."""
    policy = tiny_models.open_adapted(models("llama"))
    reference = policy.as_reference()
    assert reference.adapter is None
    assert torch.equal(logprobs(policy), logprobs(reference))
    same_policy(policy, reference, GROUPS)


def test_a_continued_adapter_starts_as_its_reference(models: Models, tmp_path: Path) -> None:
    """log pi - log ref = 0 at step 0; the reference is the SFT adapter, not the base (trl#1340)."""
    policy = continued(models, tmp_path)
    reference = policy.as_reference()
    assert reference.adapter == REFERENCE
    assert torch.equal(logprobs(policy), logprobs(reference))
    assert apart(logprobs(reference), logprobs(Policy(policy.trunk, None))) > 0.1
    same_policy(policy, reference, GROUPS)


@BOTH_WAYS
@pytest.mark.parametrize("kind", ["fresh adapter", "continued adapter", "all weights"])
def test_training_the_policy_leaves_its_reference(kind: str, models: Models, tmp_path: Path) -> None:
    """After 3 steps the reference is bit-equal to the policy of step 0, and the policy is not."""
    if kind == "all weights":
        policy = tiny_models.open_full(models("llama"))
    else:
        fresh = kind == "fresh adapter"
        policy = tiny_models.open_adapted(models("llama")) if fresh else continued(models, tmp_path)
    reference, start = policy.as_reference(), logprobs(policy)
    train(policy)
    assert torch.equal(logprobs(reference), start)
    assert apart(logprobs(policy), start) > 1e-3
    with pytest.raises(SelfCheckError, match="KL"):
        same_policy(policy, reference, GROUPS)


@BOTH_WAYS
def test_the_reference_is_not_trained(models: Models, tmp_path: Path) -> None:
    """A backward pass after the reference's forward gives its copy no gradient, and the policy all of its own."""
    policy = continued(models, tmp_path)
    reference = policy.as_reference()
    logprobs(reference)
    assert not any(value.requires_grad for value in reference.parameters().values())
    policy(GROUPS)[0].sum().backward()
    assert not gradients(reference)
    assert gradients(policy).keys() == policy.parameters().keys()
    assert not any(value.requires_grad for value in reference.parameters().values())


# --- adapters from disk -----------------------------------------------------------------------------------------------


def test_a_continued_adapter_is_the_one_that_was_saved(models: Models, tmp_path: Path) -> None:
    """Saved and opened again: bit-equal log-probabilities (trap 20)."""
    start = tiny_models.open_adapted(models("llama"))
    tiny_models.shake(start)
    directory = adapter_of(start, models("llama"), tmp_path / "adapter")
    again = open_policy(locate(str(directory)), choose_precision("cpu", "fp32"), LORA, 99)
    assert torch.equal(logprobs(again), logprobs(start))


def test_a_continued_adapter_keeps_its_rank(models: Models, tmp_path: Path) -> None:
    """Rank 4 in the directory, 8 in the recipe: the user's mistake, and both are named."""
    start = tiny_models.open_adapted(models("llama"))
    directory = adapter_of(start, models("llama"), tmp_path / "adapter")
    with pytest.raises(UserError, match=r"rank 4, alpha 8 .*rank 8, alpha 8"):
        open_policy(locate(str(directory)), choose_precision("cpu", "fp32"), LoRA(rank=8, alpha=8.0), 0)


def test_an_adapter_without_a_lora_block_is_refused(models: Models, tmp_path: Path) -> None:
    """Training all weights from an adapter directory would leave the adapter behind."""
    directory = adapter_of(tiny_models.open_adapted(models("llama")), models("llama"), tmp_path / "adapter")
    with pytest.raises(UserError, match="is an adapter"):
        open_policy(locate(str(directory)), choose_precision("cpu", "fp32"), None, 0)


def test_an_adapter_of_another_shape_is_refused(models: Models, tmp_path: Path) -> None:
    """An adapter whose names are not the model's is an error, never a fresh adapter (traps 19 and 20)."""
    directory = adapter_of(tiny_models.open_adapted(models("gpt_neox")), models("gpt_neox"), tmp_path / "adapter")
    shutil.copy(directory / "adapter_model.safetensors", tmp_path / "weights")
    other = adapter_of(tiny_models.open_adapted(models("llama")), models("llama"), tmp_path / "other")
    shutil.copy(tmp_path / "weights", other / "adapter_model.safetensors")
    with pytest.raises(UserError, match="does not fit"):
        open_policy(locate(str(other)), choose_precision("cpu", "fp32"), LORA, 0)
