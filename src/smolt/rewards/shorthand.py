"""Who rates, as a command line or Python says it: a rule's name, file.py:function, a reward model, a recipe's block."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from smolt.config import RewardMix, make_block
from smolt.config.blocks import REWARDS, RULE_NAMES
from smolt.config.complaints import beside, suggestion
from smolt.config.yaml_reader import read_text
from smolt.errors import UserError


def asked_reward(reward: Any) -> RewardMix | Callable[..., Any] | None:
    """What a recipe's `reward:` may be, from Python or a command line.

    Args:
        reward: a function, a reward block or its mapping, or a part or several: a mapping, or a text, which is a rule's
            name, "file.py:function", the directory of a reward model, or a mapping in YAML.

    Raises:
        UserError: a text is none of these, or a mapping is no reward.
    """
    ready: RewardMix | Callable[..., Any] | None = reward
    if ready is None or callable(ready) or isinstance(ready, RewardMix):
        return ready
    given = [_part(one) for one in (reward if isinstance(reward, list | tuple) else [reward])]
    whole = given[0] if len(given) == 1 and isinstance(given[0], dict) and "parts" in given[0] else {"parts": given}
    return make_block(RewardMix, **whole)


def _part(given: Any) -> Any:
    """One rater of a reward; a text as the part it stands for."""
    if not isinstance(given, str) or given in RULE_NAMES:
        return given
    if given.lstrip().startswith("{"):
        return read_text(given, "reward").data
    if given.rpartition(":")[0].endswith(".py"):
        return {"name": "python", "path": given}
    if "\0" not in given and Path(given).is_dir():
        return {"name": "model", "path": given}
    if "/" in given or given.endswith(".py"):
        raise UserError(
            f"reward: {given}: no such directory; a reward is a rule's name, file.py:function, or the directory of a "
            f"reward model{beside(Path(given))}"
        )
    if given not in REWARDS:
        raise UserError(f"reward: {given[:60]!a} is unknown" + suggestion(given, REWARDS))
    return given
