"""An audit from files: any reward model, any preferences."""

from dataclasses import replace

from smolt.config import Data, Model
from smolt.models.ground import open_ground
from smolt.models.groups import join
from smolt.models.items import preference_items
from smolt.models.saving import load_scorer
from smolt.rewards.audit.auditing import RewardAudit, audit
from smolt.rewards.audit.seen_pairs import seen_pairs

MEMORY = 2.0  # GiB for one forward of scoring


def audit_model(model: Model, pairs: Data, train: Data | None = None) -> RewardAudit:
    """Audit a reward model of smolt's, or any AutoModelForSequenceClassification with one label.

    Args:
        model: directory, adapter, run or hub name, and where and how precisely to compute.
        pairs: preferences it was not trained on; how many of them it was, as far as its run says, is counted.
        train: the preferences it was trained on, for the bag of words; without them that is cross-fitted on `pairs`.

    Raises:
        UserError: model or data cannot be read, or it is no reward model.
    """
    ground = open_ground(model)
    scorer, _ = load_scorer(model.path, ground.precision)
    audited = preference_items(pairs, ground.renderer, ground.window)
    learned = None if train is None else preference_items(train, ground.renderer, ground.window, "drop").items
    found = audit(
        scorer,
        ground.renderer,
        join(audited.items),
        window=ground.window,
        micro_tokens=scorer.trunk.micro_tokens(MEMORY),
        learned=learned,
    )
    return replace(found, seen=seen_pairs(audited, pairs.path, ground, learned))
