"""The KL estimators against torch.distributions: exact expectations and gradients, by summing over the vocabulary.

An expectation over tokens the policy samples is a sum weighted by the policy's probabilities, so nothing is drawn and
nothing is approximate. For a gradient the weights are constants (the sampler's) and each estimator is differentiated as
a loss, which is what training does.
"""

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from smolt.training.objectives import Estimator, kl

POLICY = torch.tensor([0.5, -1.0, 2.0, 0.0, -0.3], dtype=torch.float64)
REFERENCE = torch.tensor([0.1, 0.4, 1.2, -2.0, 0.6], dtype=torch.float64)


def expected_estimate(logits: Tensor, estimator: Estimator) -> Tensor:
    """E over y ~ policy of the estimator at y; the policy that samples is constant, the one inside learns."""
    logprobs = logits.log_softmax(0)
    sampler = logprobs.detach().exp()
    return (sampler * kl(logprobs, REFERENCE.log_softmax(0), estimator)).sum()


def exact_gradient() -> Tensor:
    """Gradient of KL(policy || reference) in the policy's logits."""
    logits = POLICY.clone().requires_grad_()
    kl_divergence(Categorical(logits=logits), Categorical(logits=REFERENCE)).backward()
    assert logits.grad is not None
    return logits.grad


def loss_gradient(estimator: Estimator) -> Tensor:
    """Gradient that training on the estimator gives, in expectation."""
    logits = POLICY.clone().requires_grad_()
    expected_estimate(logits, estimator).backward()
    assert logits.grad is not None
    return logits.grad


@pytest.mark.parametrize("estimator", ["k1", "k3", "k3_weighted"])
def test_k1_and_k3_are_unbiased(estimator: Estimator) -> None:
    """Their expectation is torch.distributions' KL to 1e-12."""
    exact = kl_divergence(Categorical(logits=POLICY), Categorical(logits=REFERENCE))
    assert float(expected_estimate(POLICY, estimator)) == pytest.approx(float(exact), abs=1e-12)


@pytest.mark.parametrize("estimator", ["k2", "k3_weighted"])
def test_k2_and_weighted_k3_have_the_gradient_of_the_kl(estimator: Estimator) -> None:
    """As losses, on-policy, their expected gradient is the exact one to 1e-12."""
    assert loss_gradient(estimator).tolist() == pytest.approx(exact_gradient().tolist(), abs=1e-12)


def test_plain_k3_has_another_gradient() -> None:
    """As a loss plain k3 gives E[(1 - ref/pi) grad log pi] = pi - ref in the logits, which is not the KL's gradient."""
    forward = POLICY.softmax(0) - REFERENCE.softmax(0)
    assert loss_gradient("k3").tolist() == pytest.approx(forward.tolist(), abs=1e-12)
    assert float((loss_gradient("k3") - exact_gradient()).abs().max()) > 0.05


def test_k1_as_a_loss_has_no_gradient() -> None:
    """E over the policy of grad log pi is 0: k1 belongs in the reward."""
    assert float(loss_gradient("k1").abs().max()) < 1e-12


def test_k2_is_biased_upwards_here() -> None:
    """E[k2] = E[k1^2] / 2 and not E[k1]: the bias is E[k1^2]/2 - KL, computed from the same sum."""
    k1 = POLICY.log_softmax(0) - REFERENCE.log_softmax(0)
    second_moment = float((POLICY.softmax(0) * k1**2).sum() / 2)
    assert float(expected_estimate(POLICY, "k2")) == pytest.approx(second_moment, abs=1e-12)
