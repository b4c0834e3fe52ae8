"""The same weights for both sides."""

from collections.abc import Mapping

import torch


def fill(parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Give an adapter, and a score head, weights that are a function of their order by name."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in sorted(parameters.items(), key=lambda pair: ("score" in pair[0], pair[0])):
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=draw))
