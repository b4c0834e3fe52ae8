"""KTO: the KL from mismatched answers by hand, its start, and feedback that cannot be learned from."""

import json
import logging
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import smolt
from smolt.config import KTORecipe
from smolt.models.groups import Groups, from_answers
from smolt.training.algorithms.kto import kl_column, mismatched
from tests.tiny import tiny_model

ASK = (smolt.Turn("user", "hen?"),)
GOOD, BAD = smolt.Feedback(ASK, "a hen", True), smolt.Feedback(ASK, "no", False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("kto") / "model"))


def test_each_context_meets_the_answer_before_it() -> None:
    """Contexts of 1, 2 and 3 tokens in a window of 4: the answer of 3 tokens that comes last meets the first whole.

    The second context leaves room for 2 of the 3 tokens of the first answer, the third for the one of the second.
    """
    groups = from_answers([[1], [1, 2], [1, 2, 3]], [[[11, 12, 13]], [[21]], [[31, 32, 33]]])
    found = mismatched(groups, window=4)
    assert [context.tolist() for context in found.contexts] == [[1], [1, 2], [1, 2, 3]]
    assert [answer.tolist() for answer in found.answers] == [[31, 32, 33], [11, 12], [21]]


@pytest.mark.parametrize(("each", "kl"), [(-1.0, 1.0), (-2.0, 0.0)])
def test_the_kl_by_hand(each: float, kl: float) -> None:
    """Half a nat a token above the reference, answers of 1 and 3 tokens: (0.5 + 1.5) / 2; below it 0, never less."""

    def constant(value: float) -> Any:
        def logprobs(part: Groups) -> tuple[Tensor, Tensor]:
            given = torch.full(part.mask.shape, value)
            return given, given

        return logprobs

    groups = from_answers([[1], [1]], [[[2]], [[3, 4, 5]]])
    for micro_tokens in (1, 100):
        found = kl_column(constant(each), constant(-1.5), mismatched(groups, 9), micro_tokens, groups)
        assert found.columns["kl"].tolist() == [kl, kl]


def test_it_begins_at_half_the_weights(model: str) -> None:
    """Policy and reference are one: KL 0, rewards 0, and a loss of (2 * 1 + 1) / 2 * 1/2 with weights 2 and 1."""
    training = smolt.kto(model, [GOOD, BAD], desirable_weight=2.0, batch=2, budget={"updates": 2})
    first, second = training
    assert "accuracy" not in first  # no answer is on either side of the KL yet
    assert second["accuracy"] == 1.0
    assert (first["kl"], first["loss"], first["desirable_loss"]) == pytest.approx((0.0, 0.75, 1.0), abs=1e-6)
    assert first["desirable_reward"] == first["undesirable_reward"] == pytest.approx(0.0, abs=1e-6)
    assert second["desirable_reward"] > second["undesirable_reward"]


def test_pairs_from_memory_are_two_answers_each(model: str) -> None:
    """Two pairs: 2 desirable and 2 undesirable answers."""
    training = smolt.kto(model, [smolt.Preference(ASK, "a hen", "no")] * 2, batch=2, lora={"rank": 2})
    assert {name: training.finish().metrics["facts"][name] for name in ("desirable", "undesirable", "records")} == {
        "desirable": 2,
        "undesirable": 2,
        "records": 4,
    }


@pytest.mark.parametrize(("feedback", "kind"), [([GOOD] * 3, "desirable"), ([BAD] * 3, "undesirable")])
def test_answers_of_one_kind_are_refused(feedback: list[smolt.Feedback], kind: str, model: str, tmp_path: Path) -> None:
    with pytest.raises(smolt.UserError, match=f"^feedback: all 3 answers are {kind}; kto learns from both kinds"):
        smolt.kto(model, feedback, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_kind_is_left_where_the_other_exceeds_the_window(model: str, tmp_path: Path) -> None:
    """Counted after records are dropped: of two answers of each kind, both bad ones are too long."""
    rows = [{"prompt": "hen?", "completion": "no " * (200 * bad), "label": not bad} for bad in (0, 1)] * 2
    (tmp_path / "feedback.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {"model": model, "data": {"path": str(tmp_path / "feedback.jsonl"), "too_long": "drop"}}
    with pytest.raises(smolt.UserError, match=r"feedback.jsonl: all 2 answers that fit the window are desirable"):
        smolt.kto(KTORecipe.model_validate(recipe))


def test_pairs_without_a_better_answer(model: str) -> None:
    with pytest.raises(smolt.UserError, match=r"^feedback: the answers of every pair are equally good, or the same"):
        smolt.kto(model, [smolt.Preference(ASK, "a hen", "no", 0.5), smolt.Preference(ASK, "no", "no")])


def test_judgements_as_numbers(model: str) -> None:
    """1 and 0, as tables hold them, are true and false."""
    feedback = [smolt.Feedback(ASK, answer, good) for answer, good in (("a hen", cast(bool, 1)), ("no", cast(bool, 0)))]
    (row,) = smolt.kto(model, feedback, batch=2, budget={"updates": 1})
    assert row["loss"] == pytest.approx(0.5, abs=1e-6)


def test_weights_out_of_balance_are_said(model: str, caplog: pytest.LogCaptureFixture) -> None:
    """Three to one: `desirable_weight` between 1/3 and 4/9 would balance them; with 0.4 nothing is said."""
    with caplog.at_level(logging.WARNING):
        smolt.kto(model, [GOOD] * 3 + [BAD], desirable_weight=0.4, batch=2).close()
        assert not caplog.records
        smolt.kto(model, [GOOD] * 3 + [BAD], batch=2).close()
    assert "desirable_weight between 0.33 and 0.44" in caplog.text
