"""The scores of a decision's options: the logits of their labels where each row's question is read."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smolt.data import DecisionQuestion
from smolt.data.decisions import TYPES
from smolt.models.groups import Groups, from_answers
from smolt.models.rendering.decision_prompts import MOST, AskedDecision
from smolt.models.roles import Policy

NONE = -1  # where a question has no further option


def option_groups(asked: AskedDecision, questions: Sequence[DecisionQuestion]) -> Groups:
    """The questions of one state: their shared beginning, and of each the rest of its prompt with its first label.

    Columns `labels` (NONE beyond a question's options) and `expected`, both [B, MOST, 1], and `type`, a place in TYPES.
    """
    start, rows = asked.shared, list(zip(asked.rows, asked.labels, strict=True))
    if start:
        contexts, answers = [asked.rows[0][:start]], [[[*row[start:], own[0]] for row, own in rows]]
    else:  # a template may begin with the question
        contexts, answers = [row[:-1] for row in asked.rows], [[[row[-1], own[0]]] for row, own in rows]
    padded = [[*own, *[NONE] * (MOST - len(own))] for own in asked.labels]
    expected = [list(question.expected or ()) for question in questions]
    wanted = [[*own, *[0.0] * (MOST - len(own))] for own in expected]
    return from_answers(contexts, answers, stopped=False).with_columns(
        labels=torch.tensor(padded)[:, :, None],
        expected=torch.tensor(wanted)[:, :, None],
        type=torch.tensor([TYPES.index(question.type) for question in questions]),
    )


def option_scores(policy: Policy, groups: Groups) -> Tensor:
    """Log-probabilities of the options of each question among themselves, fp32 [B, MOST]; -inf where there is none.

    Only the labels' rows of the head are computed with, at one state a question.
    """
    trunk = policy.trunk
    trunk.use(policy.adapter)
    labels = groups.columns["labels"][:, :, 0].to(trunk.precision.device)
    ends = (groups.lengths.cumsum(0) - 1).to(labels.device)
    if trunk.own_head:
        states = trunk.states(groups)[0].index_select(0, ends)
        wanted, places = labels.clamp(min=0).unique(return_inverse=True)
        logits = states.float() @ trunk.head.index_select(0, wanted).float().T
    else:
        logits, places = trunk.logits(groups).index_select(0, ends).float(), labels.clamp(min=0)
    return torch.log_softmax(logits.gather(1, places).masked_fill(labels < 0, -torch.inf), dim=-1)
