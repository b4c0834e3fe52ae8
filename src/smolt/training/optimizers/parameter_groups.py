"""Which parameters are trained together, how fast, and by which optimizer: AdamW, and Muon for matrices."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from smolt.config import LoRA, Optim

UP = ".lora_B."
"""In the name of an adapter's second matrix."""


@dataclass
class Role:
    """Parameters trained together.

    Attributes:
        parameters: by name.
        lr_scale: its learning rate as a multiple of the recipe's.
        faster: of some parameters the rate as a multiple of the role's.
        matrices: names of those that Muon trains; AdamW trains the others.
    """

    parameters: dict[str, nn.Parameter]
    lr_scale: float = 1.0
    faster: Mapping[str, float] = field(default_factory=dict)
    matrices: frozenset[str] = frozenset()


def adapter_role(parameters: dict[str, nn.Parameter], lora: LoRA | None, lr_scale: float = 1.0) -> Role:
    """A role whose adapters' second matrices may go faster than their first (LoRA+, 2402.12354)."""
    plus = 1.0 if lora is None else lora.plus
    return Role(parameters, lr_scale, {name: plus for name in parameters if UP in name and plus != 1})


def block_matrices(network: nn.Module) -> frozenset[str]:
    """Names of the matrices of a network's blocks: no embedding, no head and no norm (Muon's own, 2502.16982)."""
    linear = {f"{name}.weight" for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    head = getattr(network, "get_output_embeddings", lambda: None)()
    return frozenset(
        name
        for name, value in network.named_parameters()
        if name in linear and (head is None or value is not head.weight)
    )


def optimizers_of(roles: Mapping[str, Role], optim: Optim, fused: bool) -> list[torch.optim.Optimizer]:
    """AdamW over the parameters of all roles, and Muon over the matrices where a role names some.

    Each parameter group has its `role`, and `rate`, the learning rate as a multiple of the recipe's. Muon's steps are
    scaled to the size of AdamW's, so one learning rate serves both.
    """
    groups: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for role, part in roles.items():
        by_kind: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for name, parameter in part.parameters.items():
            kind = name in part.matrices, part.lr_scale * part.faster.get(name, 1.0)
            by_kind.setdefault(kind, []).append(parameter)
        for (muon, rate), parameters in by_kind.items():
            groups[muon].append({"params": parameters, "role": role, "rate": rate})
    lr, decay = optim.lr, optim.weight_decay
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups[False], lr=lr, betas=optim.betas, eps=optim.eps, weight_decay=decay, fused=fused)
    ]
    if groups[True]:
        found.append(torch.optim.Muon(groups[True], lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return found
