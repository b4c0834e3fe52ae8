"""The value model of PPO: an adapter on the policy's trunk, a copy of it, the policy itself, or a reward model."""

import torch

from smolt import randomness
from smolt.config import PPORecipe
from smolt.errors import UserError
from smolt.models.roles import CRITIC, Policy, Scorer, copy_trunk, score_head
from smolt.models.saving import load_scorer


def open_critic(recipe: PPORecipe, policy: Policy) -> Scorer:
    """The value model: an adapter on the policy's trunk, a copy of it, or itself, with a zero head; or a reward model.

    Raises:
        UserError: the reward model does not have the policy's shape.
    """
    trunk = policy.trunk
    if recipe.critic.start == "reward":
        path = recipe.critic.path or next(part.path for part in recipe.reward.parts if part.name == "model")
        scorer, _ = load_scorer(str(path), trunk.precision)
        scorer.head.requires_grad_(True)
        if scorer.adapter is None:
            scorer.trunk.train_all()
            scorer.trunk.network.get_submodule("score").requires_grad_(False)
        else:
            scorer.trunk.train_adapter(scorer.adapter)
        if scorer.trunk.width != trunk.width:
            raise UserError(f"critic.start: the reward model {path} is not of the policy's shape")
        scorer.trunk.recomputed = trunk.recomputed
        return scorer
    head = score_head(trunk.width, None, trunk.precision.device)
    if recipe.critic.trunk == "policy":
        return Scorer(trunk, policy.adapter, head)
    if policy.adapter is None:
        twin = copy_trunk(trunk)
        twin.train_all()
        return Scorer(twin, None, head)
    if recipe.lora is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(randomness.key(recipe.seed, 1) % 2**63)
            trunk.add_adapter(CRITIC, recipe.lora)
    trunk.train_adapter(CRITIC)
    return Scorer(trunk, CRITIC, head)
