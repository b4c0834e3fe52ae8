"""Decisions as tokens, exactly those of transformers' `pipeline("decision")`: one row a question, and its labels.

A question is read where its prompt ends, or at the mark that its template sets: the score of an option is the logit of
its label (`A`, `B`, ...; `Yes`, `No`) there. Questions of one state begin alike, so their rows share that beginning.
"""

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from smolt.data import Decision
from smolt.errors import UserError
from smolt.models.forward.quiet import hushed
from smolt.models.rendering.decision_settings import TEMPLATE, library

if TYPE_CHECKING:
    from transformers.decision import DecisionConfig, Question

MOST = 64  # options of one question


@dataclass(frozen=True)
class AskedDecision:
    """A decision's questions as rows of token ids, and for each the label of each of its options, in their order."""

    rows: list[list[int]]
    labels: list[list[int]]

    @property
    def shared(self) -> int:
        """Tokens that all rows begin with; each row has at least one more."""
        columns = enumerate(zip(*self.rows, strict=False))
        shortest = min(len(row) for row in self.rows)
        return min(shortest - 1, next((at for at, tokens in columns if len(set(tokens)) > 1), shortest))


@dataclass(frozen=True)
class DecisionPrompts:
    """From decisions to tokens, under a model's settings."""

    tokenizer: PreTrainedTokenizerBase
    settings: "DecisionConfig"

    @cached_property
    def _own(self) -> PreTrainedTokenizerBase:
        return copy.deepcopy(self.tokenizer)  # transformers adds its marks to the one it is given

    def asked(self, decision: Decision) -> AskedDecision:
        """The rows of a decision.

        Raises:
            UserError: the labels are not single tokens, or too few; a template sets too few marks.
        """
        rows, labels = dict[str, list[int]](), dict[str, list[int]]()
        try:
            with hushed():
                for inputs, questions in library().prepare_inputs(self.settings, decision.request, self._own):
                    tokens, marks = inputs["input_ids"][0].tolist(), inputs["marks"].tolist()
                    if len(marks) < len(questions):
                        raise ValueError(f"{TEMPLATE} sets {len(marks)} marks for {len(questions)} questions")
                    for question, mark in zip(questions, marks, strict=False):
                        rows[question.name] = tokens[:mark]
                        labels[question.name] = self._labels(question)
        except ValueError as error:
            raise UserError(f"decision {decision.id or ''}: {error}".replace(" :", ":")) from None
        if any(len(own) > MOST for own in labels.values()):
            raise UserError(f"decision {decision.id}: a question has more than {MOST} options")
        names = [question.name for question in decision.questions]
        return AskedDecision([rows[name] for name in names], [labels[name] for name in names])

    def _labels(self, question: "Question") -> list[int]:
        """The labels in the order of DecisionQuestion.options: a template may show true and false the other way."""
        found = dict(zip(question.options, library().label_token_ids(self._own, tuple(question.labels)), strict=True))
        return [found[name] for name in (("true", "false") if question.type == "noul" else question.options)]
