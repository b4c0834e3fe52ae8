"""The KL of two policies' answers from their whole distributions: by hand, and against the mean of log-ratios."""

from pathlib import Path

import pytest
import torch

from smolt.config import LoRA
from smolt.models.forward import logprobs
from smolt.models.forward.logprobs import divergences
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import answer_sums, from_answers
from smolt.models.locating import locate
from smolt.models.roles import Policy, divergence, open_policy
from smolt.models.sampling import Drawing, sample
from tests.tiny import tiny_model


def test_by_hand() -> None:
    """Logits (0, 0) against (ln 3, 0): KL of halves against (3/4, 1/4) = ln 2 - (ln 3) / 2; of a thing and itself 0."""
    head = torch.eye(2)
    p, q = torch.zeros(1, 2), torch.tensor([[torch.log(torch.tensor(3.0)), 0.0]])
    found, entropy = divergences(torch.cat([p, q]), head, torch.cat([q, q]), head)
    assert found.tolist() == pytest.approx([0.143841, 0.0], abs=1e-6)
    assert entropy.tolist() == pytest.approx([0.693147, 0.562335], abs=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
def test_the_gradient_is_autograds(beta: float, frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows, two at a time, at temperature 0.7: states and head as autograd has it of the written formula."""
    monkeypatch.setattr(logprobs, "CHUNK_ENTRIES", 2 * 4 * 11)
    draw = torch.Generator().manual_seed(1)
    states, other, weight = (torch.randn(7, size, generator=draw) for size in (5, 3, 1))
    head, other_head = (torch.randn(11, size, generator=draw) for size in (5, 3))
    found = []
    for by_hand in (True, False):
        mine, own = states.clone().requires_grad_(), head.clone().requires_grad_(not frozen)
        if by_hand:
            p, q = (torch.log_softmax(logits / 0.7, dim=-1) for logits in (mine @ own.T, other @ other_head.T))
            m = torch.log(beta * q.exp() + (1 - beta) * p.exp())
            sides = (q.exp() * (q - m)).sum(dim=-1), (p.exp() * (p - m)).sum(dim=-1)
            values = {0.0: sides[0], 1.0: sides[1]}.get(beta, beta * sides[0] + (1 - beta) * sides[1])
        else:
            values, _ = divergences(mine, own, other, other_head, beta, 0.7)
        (values * weight[:, 0]).sum().backward()
        found.append([values.detach(), mine.grad, torch.zeros(()) if own.grad is None else own.grad])
    for one, another in zip(*found, strict=True):
        assert one is not None and another is not None
        torch.testing.assert_close(one, another, atol=1e-5, rtol=1e-5)


@pytest.fixture
def policies(tmp_path: Path) -> tuple[Policy, Policy]:
    """A policy whose adapter has moved, and its bare trunk."""
    tiny_model(tmp_path / "model")
    policy = open_policy(locate(str(tmp_path / "model")), choose_precision("cpu", "fp32", 1), LoRA(rank=2, alpha=8), 0)
    reference = policy.as_reference()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in policy.parameters().values():
            value.add_(torch.randn(value.shape, generator=draw) * 0.2)
    return policy, reference


def test_of_policies(policies: tuple[Policy, Policy]) -> None:
    """Each token's KL is that of its two rows of logits; padding has none."""
    policy, reference = policies
    groups = from_answers([[3, 4, 5], [7, 8]], [[[5, 6, 7], [9, 2]], [[4, 4, 1]]])
    rows = []
    with torch.no_grad():
        for role in (policy, reference):
            role.trunk.use(role.adapter)
            rows.append(torch.log_softmax(role.trunk.states(groups)[0] @ role.trunk.head.T, dim=-1))
        found = divergence(policy, reference, groups)[0]
    expected = (rows[0].exp() * (rows[0] - rows[1])).sum(dim=-1)
    assert torch.allclose(found[groups.mask], expected, atol=1e-6)
    assert float(found[groups.mask].min()) > 0 and not bool(found[~groups.mask].any())


def test_it_estimates_what_the_log_ratios_estimate_with_less_spread(policies: tuple[Policy, Policy]) -> None:
    """Over 512 drawn answers: means that agree, none below 0, and a smaller spread than the sums of log-ratios."""
    policy, reference = policies
    groups = sample(policy, [[3, 4, 5]], 512, Drawing(8, 1.0, 64, frozenset({2})), (0,))
    with torch.no_grad():
        whole = answer_sums(divergence(policy, reference, groups)[0], groups.mask)
        ratios = answer_sums(policy(groups)[0] - reference(groups)[0], groups.mask)
    apart = (whole - ratios).double()
    assert abs(float(apart.mean())) < 4 * float(apart.std()) / len(apart) ** 0.5
    assert float(whole.min()) >= 0 and float(ratios.min()) < 0
    assert float(whole.std()) < float(ratios.std())
