"""Real instruction models for slow tests: made once out of public packages, or a skip with the reason.

They lie in the directory that SMOLT_REAL_MODELS names, or in the user's cache.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared import shared_path

SMOLLM2 = "smollm2-135m-instruct"
QWEN = "qwen2.5-coder-0.5b-instruct"


def real_model(name: str) -> Path:
    """The directory of a model, or a skip with the reason."""
    place = Path(os.environ.get("SMOLT_REAL_MODELS") or Path.home() / ".cache" / "smolt-real-models")
    if not (place / name / "model.safetensors").is_file():
        made = subprocess.run(
            ["bash", str(shared_path("models/real_models.sh")), str(place), sys.executable],
            capture_output=True,
            text=True,
            check=False,
        )
        if not (place / name / "model.safetensors").is_file():
            pytest.skip(f"{name} cannot be made here: {(made.stderr.splitlines() or ['no reason given'])[-1][:200]}")
    return place / name
