"""Models that the tests of the training core share."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.workshop import small_llama
from workflow_scripts.training.logps import load_policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Return the folder of a small Llama."""
    path = tmp_path_factory.mktemp("model")
    small_llama().save_pretrained(path)
    return str(path)


@pytest.fixture
def model(folder):
    """Return the small Llama as training loads it."""
    torch.set_num_threads(1)
    return load_policy(folder, "float32").eval()


@pytest.fixture(scope="module")
def stock(folder):
    """Return the small Llama as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
