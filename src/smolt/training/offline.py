"""The loss of imitation, for demonstrations and for plain text."""

from collections.abc import Iterator

from smolt.models.groups import Groups, masked_sum
from smolt.models.roles import Policy
from smolt.training.fit import Loss, LossFunction


def sft_loss(policy: Policy) -> LossFunction:
    """Token sums and token counts of a micro-batch."""

    def loss(batch: Groups) -> Iterator[Loss]:
        logprobs, entropy = policy(batch)
        mask = batch.mask.to(logprobs.device)
        count = float(mask.sum())
        metrics = {"entropy": (masked_sum(entropy.detach(), mask), count)}
        yield Loss(-masked_sum(logprobs, mask), count, metrics)

    return loss
