"""Embeddings from an endpoint: ledger, budget, retries and limits are those of chats."""

from contextlib import closing
from typing import Any

import numpy as np
import pytest

from tests.engines.embedding_server import embedding_server
from tests.engines.endpoint import settings
from tests.engines.faulty_proxy import FaultyProxy
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running import plugins
from workflow_scripts.core.running.ledger import Ledger

TEXTS = [f"A film about the number {number}" for number in range(150)]
MODEL = "text-embedding-ada-002"


def client(folder: Any, url: str, **changes: Any) -> Any:
    """Return a client of embeddings with its ledger in `folder`."""
    values = settings(url, MODEL, **changes)
    return plugins.load("engines", "openai").Embeddings(settings=values, ledger=Ledger(folder, "1_0"), purpose="items")


def test_vectors_come_in_the_texts_order_and_are_paid_for_once(tmp_path):
    with embedding_server() as server:
        with closing(client(tmp_path, server.url)) as first:
            vectors = first.embed([*TEXTS, TEXTS[0]])
            spent = first.account.spent
        assert vectors.shape == (151, 64)
        assert vectors.dtype == np.float32
        assert np.array_equal(vectors, np.float32(server.vectors([*TEXTS, TEXTS[0]])))
        assert server.requests == 3
        assert set(server.asked.values()) == {1}
        assert spent == pytest.approx(sum(len(text) // 4 + 1 for text in TEXTS) * 2.0 / 1e6)

        with closing(client(tmp_path, server.url)) as second:
            again = second.embed([*TEXTS[::-1], "A new one"])
        assert np.array_equal(again[:150], vectors[149::-1])
        assert server.asked["A new one"] == 1
        assert sum(server.asked.values()) == 151
        assert second.account.spent > spent


def test_faults_are_retried(tmp_path):
    with embedding_server() as server:
        kinds = ("500", "reset", "truncated", "no vectors", "sent twice")
        proxy = FaultyProxy(server.server_port, share=0.5, kinds=kinds, seed=3)
        with closing(client(tmp_path, proxy.url)) as running:
            for start in range(0, 150, 5):
                vectors = running.embed(TEXTS[start : start + 5])
                assert np.array_equal(vectors, np.float32(server.vectors(TEXTS[start : start + 5])))
        assert all(proxy.faults[kind] for kind in kinds)


def test_the_budget_stops_and_what_is_paid_for_is_kept(tmp_path):
    with embedding_server() as server:
        with closing(client(tmp_path, server.url, budget=0.004, concurrency=1)) as halved:
            with pytest.raises(BadInput, match=r"the budget is reached[^\n]*\n\d+ of 150 texts are answered"):
                halved.embed(TEXTS)
        assert 0 < sum(server.asked.values()) < 150

        with closing(client(tmp_path, server.url, budget=1.0)) as resumed:
            resumed.embed(TEXTS)
        assert set(server.asked.values()) == {1}


def test_an_answer_without_usage_counts_at_its_bound(tmp_path):
    with embedding_server() as server:
        proxy = FaultyProxy(server.server_port, share=1.0, kinds=("no usage",))
        with closing(client(tmp_path, proxy.url)) as running:
            running.embed(TEXTS[:3])
        assert running.account.spent == running._bound(TEXTS[:3])


def test_another_model_under_the_same_name_is_noticed(tmp_path):
    with embedding_server(width=64) as server:
        with closing(client(tmp_path, server.url)) as first:
            first.embed(TEXTS[:2])
        server.width = 32
        with closing(client(tmp_path, server.url)) as second:
            with pytest.raises(BadInput, match="returned vectors of 32 and of 64 numbers"):
                second.embed(TEXTS[:3])


def test_what_the_endpoint_refuses_is_told_at_once(tmp_path):
    with embedding_server() as server, closing(client(tmp_path, server.url)) as running:
        with pytest.raises(BadInput, match=r"the endpoint refuses the request: .*a text is empty"):
            running.embed(["  "])
    assert server.requests == 1
