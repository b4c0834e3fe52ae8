"""Roles: a policy gives log-probabilities of answers, a scorer gives values (critic) or verdicts (reward model)."""

import copy
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from smolt.config import LoRA
from smolt.errors import UserError
from smolt.models.forward.decode_step import LeanDecoder
from smolt.models.forward.logprobs import chosen_logprobs, divergences
from smolt.models.forward.precision import Precision
from smolt.models.forward.trunk import Trunk, load_trunk
from smolt.models.groups import Groups
from smolt.models.locating import Located

POLICY, REFERENCE, CRITIC, REWARD = "policy", "reference", "critic", "reward"


@dataclass
class Policy:
    """A causal language model in the role of a policy (or, frozen, of a reference).

    Attributes:
        trunk: the network.
        adapter: the adapter this role uses; None is the bare trunk (all weights are the role's own).
        decoder: what answers are decoded with, where the weights will not change; None makes one for every sampling.
    """

    trunk: Trunk
    adapter: str | None
    decoder: LeanDecoder | None = None

    def __call__(self, groups: Groups, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probability of each answer token and the entropy of the distribution it came from.

        Args:
            groups: contexts and answers.
            temperature: > 0, divides the logits; the one the answers were sampled with.

        Returns:
            (logprobs, entropy), fp32 [B, T] on the trunk's device, zero on padding.
        """
        self.trunk.use(self.adapter)
        if self.trunk.own_head:
            return self.predicted(self.trunk.states(groups)[0], groups, temperature)
        targets = torch.cat(groups.answers).to(self.trunk.precision.device)
        distribution = torch.log_softmax(self.trunk.logits(groups).float() / temperature, dim=-1)
        entropy = -(distribution.exp() * distribution).sum(dim=-1)
        return spread(distribution.gather(1, targets[:, None])[:, 0], groups), spread(entropy, groups)

    def predicted(self, states: Tensor, groups: Groups, temperature: float) -> tuple[Tensor, Tensor]:
        """The same from the states before each answer token, [M, h], where the head is ours."""
        targets = torch.cat(groups.answers).to(self.trunk.precision.device)
        flat, entropy = chosen_logprobs(states, self.trunk.head, targets, temperature)
        return spread(flat, groups), spread(entropy, groups)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What training this role changes, by name."""
        if self.adapter is None:
            return dict(self.trunk.network.named_parameters())
        return self.trunk.adapter_parameters(self.adapter)

    def as_reference(self) -> "Policy":
        """This policy as it is now, frozen: the bare trunk under a fresh adapter, else a copy."""
        if self.adapter is None:
            return Policy(copy_trunk(self.trunk), None)
        if self._adapter_is_zero():
            return Policy(self.trunk, None)
        self.trunk.copy_adapter(REFERENCE, self.adapter)
        return Policy(self.trunk, REFERENCE)

    def _adapter_is_zero(self) -> bool:
        parameters = self.parameters().items()
        return all(not bool(value.any()) for key, value in parameters if ".lora_B." in key)


@dataclass
class Scorer:
    """A network with a one-number head: a critic or a reward model.

    Attributes:
        trunk: the network; may be the policy's under LoRA.
        adapter: the adapter this role uses, None for the bare trunk.
        head: h -> 1, no bias, fp32.
    """

    trunk: Trunk
    adapter: str | None
    head: nn.Linear

    def values(self, groups: Groups) -> Tensor:
        """Value of the state BEFORE each answer token, fp32 [B, T], zero on padding."""
        self.trunk.use(self.adapter)
        states, _ = self.trunk.states(groups)
        return spread(self.scored(states), groups)

    def verdicts(self, groups: Groups) -> Tensor:
        """One score for each answer, read AT its last token (append the stop token to a truncated one), fp32 [B]."""
        self.trunk.use(self.adapter)
        _, last = self.trunk.states(groups, with_last=True)
        return self.scored(last)

    def scored(self, states: Tensor) -> Tensor:
        """Its number for each of these states, [M, h] -> fp32 [M]."""
        scores: Tensor = self.head(states.float())[:, 0]
        return scores

    def parameters(self) -> dict[str, nn.Parameter]:
        """What training this role changes, by name; the head is `score.weight`."""
        if self.adapter is None:
            own = dict(self.trunk.backbone.named_parameters())
        else:
            own = self.trunk.adapter_parameters(self.adapter)
        return {**own, **self.head_parameters()}

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """The head alone: all that a critic on the policy's states adds to these."""
        return {"score.weight": cast(nn.Parameter, self.head.weight)}


def logprobs_and_values(
    policy: Policy, critic: Scorer, groups: Groups, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """`policy(groups, temperature)` and `critic.values(groups)` of a critic on the policy's states, in one forward."""
    if not policy.trunk.own_head:
        return *policy(groups, temperature), critic.values(groups)
    policy.trunk.use(policy.adapter)
    states, _ = policy.trunk.states(groups)
    return *policy.predicted(states, groups, temperature), spread(critic.scored(states), groups)


def spread(flat: Tensor, groups: Groups) -> Tensor:
    """Values of the real answer tokens in order, [M] -> [B, T] with zeros on padding."""
    mask = groups.mask.to(flat.device)
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)


def divergence(
    policy: Policy, reference: Policy, groups: Groups, beta: float = 1.0, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """KL(policy || reference) of the distributions before each answer token, and the entropy of the policy's.

    The sum of the first over an answer the policy drew is an unbiased estimate of the KL of whole answers, and unlike
    the sum of log-ratios it is never below 0 and varies less (2504.10637). Rows of padding in the vocabulary that only
    one of the two has are left out.

    Args:
        policy: the gradient is its own.
        reference: a constant.
        groups: contexts and answers.
        beta: another divergence of the same kind, see `jensen_shannon`.
        temperature: > 0, divides both logits.

    Returns:
        Both fp32 [B, T] in nats, zero on padding.
    """
    with torch.no_grad():
        constant = _predictions(reference, groups)
    sides = [_predictions(policy, groups), constant]
    rows = min(len(states[0] if head is None else head) for states, head in sides)
    cut = [(states[:, :rows], None) if head is None else (states, head[:rows]) for states, head in sides]
    (own, head), (other, other_head) = cut
    flat, entropy = divergences(own, head, other, other_head, beta, temperature)
    return spread(flat, groups), spread(entropy, groups)


def _predictions(role: Policy, groups: Groups) -> tuple[Tensor, Tensor | None]:
    """States that predict each answer token, [M, h], and the head; or logits, [M, V], where the head is not ours."""
    role.trunk.use(role.adapter)
    if role.trunk.own_head:
        return role.trunk.states(groups)[0], role.trunk.head
    return role.trunk.logits(groups), None


def copy_trunk(trunk: Trunk) -> Trunk:
    """A frozen copy of a trunk with full weights."""
    twin = copy.copy(trunk)
    twin.network = copy.deepcopy(trunk.network).requires_grad_(False)
    return twin


def score_head(width: int, key: int | None, device: torch.device) -> nn.Linear:
    """A head of zeros, or with a key drawn from N(0, 1/(h+1)) as 2009.01325 starts its reward models."""
    head = nn.Linear(width, 1, bias=False, device=device)
    with torch.no_grad():
        if key is None:
            head.weight.zero_()
        else:
            draw = torch.Generator().manual_seed(key % 2**63)
            head.weight.copy_(torch.randn(1, width, generator=draw) / math.sqrt(width + 1))
    return head


def open_policy(located: Located, precision: Precision, lora: LoRA | None, seed: int) -> Policy:
    """A policy to train: all weights, a fresh adapter, or the adapter at the path, which continues.

    Args:
        located: what the model path means.
        precision: where and how precisely.
        lora: the adapter block; None trains all weights.
        seed: of the fresh adapter.

    Raises:
        UserError: an adapter continues under a different rank or without a lora block.
    """
    trunk = load_trunk(located, precision, trained=lora is None)
    if lora is None:
        _refuse_adapter(located)
        trunk.train_all()
        return Policy(trunk, None)
    attach(trunk, POLICY, located, lora, seed)
    trunk.train_adapter(POLICY)
    return Policy(trunk, POLICY)


def attach(trunk: Trunk, name: str, located: Located, lora: LoRA, seed: int) -> None:
    """Put the role's adapter on the trunk: the one at the path if there is one, else a fresh one."""
    if located.adapter is not None:
        trunk.load_adapter(name, located.adapter)
        found = trunk.peft.peft_config[name] if trunk.peft is not None else None
        if found is not None and (found.r, float(found.lora_alpha)) != (lora.rank, lora.alpha):
            raise _rank_error(located, found.r, found.lora_alpha, lora)
        if found is not None and (found.use_rslora, found.use_dora) != (lora.scaling == "root", lora.dora):
            raise UserError(
                f"lora: the adapter at {located.adapter} has scaling {'root' if found.use_rslora else 'rank'} and dora "
                f"{str(bool(found.use_dora)).lower()} and continues as it is; write the same, or merge it first"
            )
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk.add_adapter(name, lora)


def _rank_error(located: Located, rank: int, alpha: float, lora: LoRA) -> UserError:
    return UserError(
        f"lora: the adapter at {located.adapter} has rank {rank}, alpha {alpha:g} and continues as it is; "
        f"the recipe says rank {lora.rank}, alpha {lora.alpha:g}. Write the same, or merge the adapter first"
    )


def _refuse_adapter(located: Located) -> None:
    if located.adapter is not None:
        raise UserError(f"lora: {located.adapter} is an adapter; give a lora block to continue it, or merge it first")
