"""The tiny models in smolt's roles, with all weights trained, in fp32 on the CPU."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from smolt.models.forward.precision import choose_precision
from smolt.models.forward.trunk import Trunk, load_trunk
from smolt.models.groups import Groups
from smolt.models.locating import locate
from smolt.models.roles import Policy, Scorer
from tests.parity import tiny


@dataclass(frozen=True)
class Roles:
    """Directories of the tiny models, opened on demand: each test trains its own copy."""

    folder: Path

    def open(self, name: str, classifier: bool = False) -> Trunk:
        """A trunk with every weight trained."""
        trunk = load_trunk(locate(str(self.folder / name)), choose_precision("cpu", "fp32"), True, classifier)
        trunk.train_all()
        return trunk

    def policy(self) -> Policy:
        return Policy(self.open("policy"), None)

    def scorer(self) -> Scorer:
        trunk = self.open("scorer", classifier=True)
        head = trunk.network.get_submodule("score")
        assert isinstance(head, torch.nn.Linear)
        return Scorer(trunk, None, head)

    def logprobs(self, name: str, groups: Groups) -> torch.Tensor:
        """Log-probabilities [B, T] under another model, as a constant."""
        with torch.no_grad():
            return Policy(self.open(name), None)(groups)[0]


@pytest.fixture(scope="session")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roles]:
    """The models written as directories."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.save(tiny.policy(), folder / "policy")
    tiny.save(tiny.reference(), folder / "reference")
    tiny.save(tiny.scorer(), folder / "scorer")
    yield Roles(folder)
