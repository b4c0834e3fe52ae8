"""Pairs and texts as measurements: nothing is sampled, the model only says how likely, or how good, each answer is."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smolt.config import Data, Model
from smolt.data import Context, Demonstration, Preference
from smolt.errors import UserError
from smolt.evaluation.measures import loss_measures, pair_measures
from smolt.evaluation.tasks import Subject
from smolt.models.ground import Ground
from smolt.models.groups import Groups, answer_sums, from_answers, join, without_gradient
from smolt.models.items import demonstration_items, preference_items, records_of, too_long_policy
from smolt.models.saving import is_reward_model, load_policy, load_scorer
from smolt.runs.chunks import Work

CHUNK = 256  # records between two checkpoints
MEMORY = 2.0  # GiB for one forward


def preferring(model: Model, ground: Ground, data: Data | Sequence[Preference], too_long: str = "error") -> Subject:
    """Prepare pairs: a language model is asked for log-probabilities, a reward model for its verdicts.

    A pair whose weight is below 1/2 says that its second answer is the better one; one of exactly 1/2 says nothing and
    is left out.

    Raises:
        UserError: the data hold no pairs, none that says which is better, or some that exceed the window.
    """
    records, digest, place = records_of(data, "preferences")
    names = [f"pair:{number + 1}" for number, pair in enumerate(records) if pair.weight != 0.5]
    pairs = [pair.likelier_first for pair in records if pair.weight != 0.5]
    if not pairs:
        raise UserError(f"{place}: all {len(records)} pairs have weight 0.5, which says that neither answer is better")
    prepared = preference_items(pairs, ground.renderer, ground.window, too_long_policy(data, too_long), "keep")
    judged = is_reward_model(ground.located)

    def open_work() -> Work:
        score = _scorer(model, ground, judged)

        def work(places: range) -> list[dict[str, Any]]:
            batch = join(prepared.items[places.start : places.stop])
            scores = score(batch).tolist()
            lengths = batch.lengths.tolist()
            return [
                _pair_row(pairs[prepared.kept[at]], names[prepared.kept[at]], scores[2 * n :], lengths[2 * n :], judged)
                for n, at in enumerate(places)
            ]

        return work

    undecided = len(records) - len(pairs)
    note = f"{undecided} pairs of weight 0.5 were left out: they say that neither answer is better"
    return Subject(
        total=len(prepared.items),
        chunk=CHUNK,
        sha256=digest,
        too_long=prepared.dropped,
        facts={"scored_by": "reward model" if judged else "log-probability"},
        open_work=open_work,
        measures=pair_measures,
        notes=[note] if undecided else [],
    )


def losing(model: Model, ground: Ground, data: Data | Sequence[Demonstration], too_long: str = "error") -> Subject:
    """Prepare demonstrations, or plain text, for a held-out loss: of the answer's tokens with their stop token.

    A plain text that exceeds the window is cut into pieces that are each begun anew.

    Raises:
        UserError: the data hold neither, or demonstrations exceed the window.
    """
    records, digest, _ = records_of(data, "demonstrations")
    if all(not record.context for record in records):
        passages, dropped = _pieces(records, ground), 0
    else:
        passages, dropped = _answers(records, ground, too_long_policy(data, too_long))

    def open_work() -> Work:
        score = _scorer(model, ground, judged=False)

        def work(places: range) -> list[dict[str, Any]]:
            parts = passages[places.start : places.stop]
            scores = score(join([part.groups for part in parts])).tolist()
            return [_loss_row(part, logprob) for part, logprob in zip(parts, scores, strict=True)]

        return work

    cut = len(passages) > len(records)
    note = f"texts that exceed the window of {ground.window} tokens were cut; n counts the pieces"
    return Subject(
        total=len(passages),
        chunk=CHUNK,
        sha256=digest,
        too_long=dropped,
        facts={"window": ground.window},
        open_work=open_work,
        measures=loss_measures,
        notes=[note] if cut else [],
    )


@dataclass(frozen=True)
class Passage:
    """One answer to be predicted: its tokens, what names it, what was asked, and its share of the text's bytes."""

    groups: Groups
    name: str
    question: str
    bytes: float


def _answers(records: list[Demonstration], ground: Ground, too_long: str) -> tuple[list[Passage], int]:
    """Demonstrations that fit, and how many do not."""
    prepared = demonstration_items(records, ground.renderer, ground.window, too_long)
    passages = [
        Passage(groups, f"text:{kept + 1}", _last(records[kept].context), _bytes(records[kept].answer))
        for groups, kept in zip(prepared.items, prepared.kept, strict=True)
    ]
    return passages, prepared.dropped


def _pieces(records: list[Demonstration], ground: Ground) -> list[Passage]:
    """Texts as answers to the empty context, each cut into as many as the window makes of it."""
    start = ground.renderer.context(())
    size = ground.window - len(start)
    passages = []
    for number, record in enumerate(records, 1):
        tokens = ground.renderer.answer(record.answer)
        share = _bytes(record.answer) / len(tokens)
        for at in range(0, len(tokens), size):
            piece = tokens[at : at + size]
            name = f"text:{number}" if len(tokens) <= size else f"text:{number}/{at // size + 1}"
            passages.append(Passage(from_answers([start], [[piece]]), name, "", share * len(piece)))
    return passages


def _scorer(model: Model, ground: Ground, judged: bool) -> Callable[[Groups], Tensor]:
    """Scores answers, fp64 [B]: by a reward model's verdict, or by their summed log-probability."""
    if judged:
        scorer, _ = load_scorer(model.path, ground.precision)
        room = scorer.trunk.micro_tokens(MEMORY)
        return lambda groups: without_gradient(groups, room, scorer.verdicts).to(torch.float64)
    policy = load_policy(model.path, ground.precision)
    tokens = policy.trunk.micro_tokens(MEMORY)

    def logprobs(groups: Groups) -> Tensor:
        return answer_sums(without_gradient(groups, tokens, lambda part: policy(part)[0]).double(), groups.mask)

    return logprobs


def _pair_row(
    pair: Preference, name: str, scores: Sequence[float], lengths: Sequence[int], judged: bool
) -> dict[str, Any]:
    kind = "score" if judged else "logprob"
    return {
        "question_id": name,
        "question": _last(pair.context),
        "context": hashlib.sha256(repr(pair.context).encode("utf-8", "backslashreplace")).hexdigest()[:16],
        "correct": scores[0] > scores[1],
        "score": scores[0] - scores[1],
        f"chosen_{kind}": scores[0],
        f"rejected_{kind}": scores[1],
        "chosen_tokens": lengths[0],
        "rejected_tokens": lengths[1],
    }


def _loss_row(passage: Passage, logprob: float) -> dict[str, Any]:
    tokens = int(passage.groups.lengths.sum())
    return {
        "question_id": passage.name,
        "question": passage.question,
        "score": logprob / tokens,
        "logprob": logprob,
        "tokens": tokens,
        "bytes": passage.bytes,
    }


def _bytes(text: str) -> float:
    return float(max(1, len(text.encode("utf-8", "surrogatepass"))))


def _last(context: Context) -> str:
    return context[-1].content if context else ""
