"""Fixtures of the tests of recommend."""

import pytest

from tests.tasks.recommend.parts import ITEMS, RIGHT
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.init_model import train_tokenizer


@pytest.fixture
def path(tmp_path):
    write_pickle(tmp_path / "items.pkl", {"items": ITEMS, "embedder": "tfidf", "vectors": None})
    return tmp_path / "items.pkl"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([RIGHT, "What decade do you like?", "User:A western, please.\n\nAssistant:"] * 20, 320)
