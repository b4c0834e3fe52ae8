"""One reward model on held-out pairs: a forward over the pairs, one over the probes, and all figures from the two."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from smolt import randomness
from smolt.models.groups import Groups, without_gradient
from smolt.models.rendering import Renderer
from smolt.models.roles import Scorer
from smolt.rewards.audit import figures, words
from smolt.rewards.audit.figures import Against, Bin, Floats, Lean
from smolt.rewards.audit.probes import probe
from smolt.statistics import Measure

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RewardAudit:
    """What an audit found.

    Attributes:
        accuracy: share of held-out pairs whose chosen answer leads.
        loss: mean of -log sigmoid(lead).
        against: baseline -> the comparison with it; "words" is the bag of words.
        words_from: what the bag of words was fitted on.
        lean: how far it follows the length.
        gaps: accuracy by length gap.
        calibration: accuracy by predicted probability.
        ece: expected calibration error.
        probes: share of pairs in which a probe is scored above the chosen answer.
        refused: why nothing should be trained on it, or None.
        seen: of the pairs, how many it is known to have learned from.
    """

    accuracy: Measure
    loss: float
    against: dict[str, Against]
    words_from: str
    lean: Lean
    gaps: list[Bin]
    calibration: list[Bin]
    ece: float
    probes: dict[str, Measure]
    refused: str | None
    seen: int = 0

    def facts(self) -> dict[str, Any]:
        """Plain data for result.json and `--json`."""
        parts = {"chosen longer": self.lean.longer, "chosen shorter": self.lean.shorter}
        return {
            **{name: value for name, value in asdict(self).items() if name != "lean"},
            "by_length_gap": {name: asdict(part) for name, part in parts.items() if part is not None},
            "length": asdict(self.lean),
            "baselines": {name: found.baseline.value for name, found in self.against.items()},
        }


def audit(
    scorer: Scorer,
    renderer: Renderer,
    pairs: Groups,
    *,
    window: int,
    micro_tokens: int,
    learned: Sequence[Groups] | None = None,
) -> RewardAudit:
    """Audit a reward model.

    Args:
        scorer: the reward model.
        renderer: its own.
        pairs: held-out preferences, with the columns of preference_items.
        window: most tokens of context and answer.
        micro_tokens: of one forward.
        learned: its training pairs, for the bag of words; without them that is cross-fitted on the held-out pairs.
    """
    LOG.info("scoring the answers of %d pairs", len(pairs.contexts))
    scores = without_gradient(pairs, micro_tokens, scorer.verdicts)
    chosen, rejected = (np.flatnonzero(pairs.columns["side"].numpy() == side) for side in (0, 1))
    values = scores.double().numpy()
    lengths = pairs.lengths.double().numpy()
    leads, gaps = values[chosen] - values[rejected], lengths[chosen] - lengths[rejected]
    texts = [
        (renderer.decode(pairs.answers[first].tolist()), renderer.decode(pairs.answers[second].tolist()))
        for first, second in zip(chosen, rejected, strict=True)
    ]
    contexts = [pairs.contexts[pairs.owners[row]] for row in chosen]
    asked = [(context, text) for context, (_, text) in zip(contexts, texts, strict=True)]
    LOG.info("fitting a bag of words, the baseline")
    by_words, source = _words(texts, learned, renderer)
    LOG.info("scoring answers that were tampered with")
    probes = probe(scorer, renderer, window, micro_tokens, asked, values[chosen].tolist())
    return assemble(leads, gaps, by_words, source, probes)


def assemble(
    leads: Floats, gaps: Floats, by_words: Floats | None, source: str, probes: dict[str, Measure]
) -> RewardAudit:
    """All figures from leads, length gaps, the bag of words' leads and the probes."""
    compared = {name: figures.against(leads, earned) for name, earned in figures.baselines(gaps, by_words).items()}
    return RewardAudit(
        accuracy=figures.accuracy(leads),
        loss=float(np.logaddexp(0, -leads).mean()),
        against=compared,
        words_from=source,
        lean=figures.lean(leads, gaps),
        gaps=figures.gap_bins(leads, gaps),
        calibration=figures.confidence_bins(leads),
        ece=figures.calibration_error(leads),
        probes=probes,
        refused=figures.refusal(leads, compared),
    )


def _words(texts: list[words.Pair], learned: Sequence[Groups] | None, renderer: Renderer) -> tuple[Floats | None, str]:
    if learned is not None:
        pairs = [_texts(item, renderer) for item in learned[: words.MOST_PAIRS]]
        return words.fit(pairs).leads(texts), f"{len(pairs):,} of its training pairs"
    if len(texts) < 2 * words.FOLDS:
        return None, ""
    order = randomness.permutation(len(texts), 0)
    return words.cross_fitted(texts, order), f"the other folds of the same pairs ({words.FOLDS} folds)"


def _texts(item: Groups, renderer: Renderer) -> words.Pair:
    """The two answers of one pair."""
    sides = dict(zip(item.columns["side"].tolist(), item.answers, strict=True))
    return renderer.decode(sides[0].tolist()), renderer.decode(sides[1].tolist())
