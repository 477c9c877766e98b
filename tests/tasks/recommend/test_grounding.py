"""Grounding by vectors: an embeddings endpoint, precomputed vectors, templates of item texts; and what is refused."""

import json
import sys
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from tests.engines.embedding_server import embedding_server
from tests.engines.endpoint import PRICES
from tests.harness import Copy
from workflow_scripts import grade
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import load
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_parquet
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.rollout.environment import Conversation
from workflow_scripts.tasks import load as load_part
from workflow_scripts.tasks.defaults import EnvironmentOptions
from workflow_scripts.tasks.recommend import catalogue
from workflow_scripts.tasks.recommend.items import Catalogue, open_catalogue, read_items, with_texts
from workflow_scripts.tasks.recommend.settings import Grounding
from workflow_scripts.tasks.recommend.vectors import read_vectors
from workflow_scripts.tasks.recommend.wing import Wing

INFO = {
    "7": {"name": "Silver Harbor (1968)", "genre": ["western", "drama"], "plot": "A sheriff waits for a ship."},
    "9": {"name": "Quiet Garden (1974)", "genre": ["comedy"], "plot": "Neighbours quarrel over roses."},
    "11": {"name": "Crimson Letter (1981)", "genre": [], "plot": ""},
    "12": {"name": "Quiet Garden (1974)", "genre": ["comedy"], "plot": "The same again."},
}
TITLES = ["Silver Harbor (1968)", "Quiet Garden (1974)", "Crimson Letter (1981)"]
MODEL = "text-embedding-ada-002"


@pytest.fixture
def info(tmp_path) -> str:
    """Return the path of items as in TART's data/{kg_dataset}/id2info.json."""
    path = tmp_path / "id2info.json"
    path.write_text(json.dumps(INFO))
    return str(path)


def endpoint(url: str) -> dict[str, str]:
    return {"base_url": url, "model": MODEL}


LIMITS = {"openai": {"key_env": None, "prices": PRICES, "budget": 1.0}}


def make_catalogue(folder, items: str, url: str | None = None, **grounding: Any) -> dict[str, Any]:
    """Run the stage `catalogue` and return its output."""
    write_parquet(folder / "prompts.parquet", [{"mentioned": TITLES}])
    arguments = [
        "catalogue",
        "--prompts",
        folder / "prompts.parquet",
        "--file",
        items,
        "--output",
        folder / "items.pkl",
    ]
    if url:
        arguments += ["--endpoints", json.dumps({"task": {"grounding": LIMITS}}), "--requests", folder / "ledger"]
        grounding["openai"] = endpoint(url)
    arguments += ["--embedder", grounding.pop("embedder", "openai"), "--grounding", json.dumps(grounding)]

    sys.argv = list(map(str, arguments))
    catalogue.main()
    return read_pickle(folder / "items.pkl")


def remote_grounding(url: str, **changes: Any) -> dict[str, Any]:
    return {"embedder": "openai", "openai": endpoint(url), "literal": False, "top_k": 1} | changes


# ---------------------------------------------------------------- items and their texts


def test_items_of_tart_have_ids_and_lists_of_values(info, capsys):
    items = read_items(info)
    assert [item["title"] for item in items] == TITLES
    assert items[0]["attributes"] == {"id": "7", "genre": "western, drama", "plot": "A sheriff waits for a ship."}
    assert "1 ids are left out" in capsys.readouterr().err


def test_texts_are_templates_of_the_items_fields(info, capsys):
    items = with_texts(read_items(info), "{title}: {plot}")
    assert [item["text"] for item in items] == [
        "Silver Harbor (1968): A sheriff waits for a ship.",
        "Quiet Garden (1974): Neighbours quarrel over roses.",
        "Crimson Letter (1981):",
    ]
    assert "1 of 3 items have no plot" in capsys.readouterr().err
    with pytest.raises(BadInput, match=r"no item has the field 'story'; fields are genre, id, plot, text, title"):
        with_texts(read_items(info), "{story}")


# ---------------------------------------------------------------- precomputed vectors

VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4) + 1


def write_vectors(folder, form: str) -> str:
    """Write the vectors of the three items in one of the formats; return the path."""
    path = folder / f"vectors{form}"
    ids = ["7", "9", "11"]
    values = VECTORS.tolist()

    if form == ".npy":
        np.save(path, VECTORS)
    elif form == ".npz":
        np.savez(path, ids=np.array(ids[::-1]), vectors=VECTORS[::-1])
    elif form == ".parquet":
        write_parquet(path, [{"title": title, "embedding": vector} for title, vector in zip(TITLES, values)])
    elif form == ".json":
        path.write_text(json.dumps(dict(zip(ids, values))))
    elif form == ".jsonl":
        path.write_text("".join(json.dumps({"id": int(i), "vector": v}) + "\n" for i, v in zip(ids, values)))
    else:
        path.mkdir()
        for name, vector in zip(ids, values):
            (path / f"{name}.json").write_text(json.dumps(vector))
        (path / "99.json").write_text("an item that the catalogue has not")

    return str(path)


@pytest.mark.parametrize("form", [".npy", ".npz", ".parquet", ".json", ".jsonl", ""])
def test_vectors_are_read_in_each_format_at_unit_length(tmp_path, info, form):
    vectors = read_vectors(write_vectors(tmp_path, form), read_items(info))
    assert np.allclose(vectors, VECTORS / np.linalg.norm(VECTORS, axis=1)[:, None])
    assert vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"7": [1, 2], "9": [1, 2]}, r"no vector for 1 of 3 items \(11…\)"),
        ({"7": [1, 2], "9": [1, 2, 3], "11": [1, 2]}, "the vectors differ in width: 2 for 11, 3 for 9"),
        ({"7": [1, 2], "9": [0, 0], "11": [1, 2]}, "the vector of '9' is zero or not finite"),
        ({"7": [1, 2], "9": "x", "11": [1, 2]}, "the vector of '9' should be a list of numbers, found 'x'"),
        ([{"name": "7", "vector": [1]}], "record 1: needs `id` or `title`"),
    ],
)
def test_bad_vectors_are_refused_by_name(tmp_path, info, value, message):
    (tmp_path / "v.json").write_text(json.dumps(value))
    with pytest.raises(BadInput, match=message):
        read_vectors(str(tmp_path / "v.json"), read_items(info))


def test_an_array_without_ids_needs_a_row_per_item(tmp_path, info):
    np.save(tmp_path / "v.npy", VECTORS[:2])
    with pytest.raises(BadInput, match=r"an array of shape \[2, 4\], but the catalogue has 3 items"):
        read_vectors(str(tmp_path / "v.npy"), read_items(info))
    (tmp_path / "w.npy").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="not an array of numbers that NumPy saved"):
        read_vectors(str(tmp_path / "w.npy"), read_items(info))


# ---------------------------------------------------------------- the endpoint


def test_items_and_utterances_are_embedded_by_the_endpoint_once(tmp_path, info):
    with embedding_server() as server:
        for _ in range(2):
            stored = make_catalogue(tmp_path, info, server.url, text="{title}: {plot}")
        assert server.asked.total() == 3
        assert stored["embedder"] == MODEL
        assert np.allclose(np.linalg.norm(stored["vectors"], axis=1), 1)

        utterance = "You may like: 1. A sheriff who waits for his ship"
        grounding = Grounding.model_validate(
            remote_grounding(server.url, query="assistant: {utterance}")
            | {"openai": endpoint(server.url) | LIMITS["openai"]}
        )
        options = EnvironmentOptions(requests=str(tmp_path / "ledger"))
        for _ in range(2):
            with closing(open_catalogue(str(tmp_path / "items.pkl"), grounding, options, "test")) as items:
                items.prepare([utterance, "What do you like?"])
                assert items.items[items.ranking(utterance)[0]]["title"] == TITLES[0]
        assert server.asked[f"assistant: {utterance}"] == 1
        assert server.asked.total() == 4  # the question recommends nothing, so it is not embedded


def test_vectors_of_another_width_are_refused(tmp_path, info):
    with embedding_server() as server:
        make_catalogue(tmp_path, info, server.url, vectors=write_vectors(tmp_path, ".json"))
        assert server.requests == 0  # the items' vectors exist

        grounding = Grounding.model_validate(
            remote_grounding(server.url) | {"openai": endpoint(server.url) | LIMITS["openai"]}
        )
        options = EnvironmentOptions(requests=str(tmp_path / "ledger"))
        with closing(open_catalogue(str(tmp_path / "items.pkl"), grounding, options, "test")) as items:
            with pytest.raises(BadInput, match=f"have 4 numbers, but {MODEL} gives an utterance 64"):
                items.ranking("1. Alien")

    with pytest.raises(BadInput, match=f"made for the embedder '{MODEL}', not for 'tfidf'"):
        Catalogue(tmp_path / "items.pkl", Grounding())


def test_a_round_of_dialogues_is_grounded_and_graded_and_paid_for_once(tmp_path, info, monkeypatch):
    with embedding_server() as server:
        make_catalogue(tmp_path, info, server.url, text="{title}: {plot}")
        settings = {"grounding": remote_grounding(server.url), "list_length": 1}
        endpoints = {"grounding": LIMITS}
        options = EnvironmentOptions(endpoints=endpoints, requests=str(tmp_path / "ledger"))
        files = {"catalogue": str(tmp_path / "items.pkl")}
        prompt: Any = {"id": "q", "question": "A western?", "reference": [TITLES[0]], "dialog": [], "level": "x"}
        right = "1. A sheriff waits for a ship"

        for _ in range(2):  # the second time is a resumed shard
            talks = [Conversation(f"q.{i}", prompt, turns=[{"role": "assistant", "content": right}]) for i in range(3)]
            with load_part("recommend", "Conversation", settings, files).environment("eval", options) as environment:
                assert [turn.text for turn in environment.reply(talks)] == [None] * 3  # a hit ends the dialogue
        assert server.asked[right] == 1

        last = "1. Neighbours quarrel over roses"
        answers = []
        for i, text in enumerate((right, last)):
            turns = [{"role": "assistant", "content": text}]
            answers.append(prompt | {"uid": str(i), "answer": text, "turns": turns})
        write_pickle(tmp_path / "answers.pkl", answers)
        arguments = {
            "task": "recommend",
            "task-settings": json.dumps(settings),
            "task-file": f"catalogue={files['catalogue']}",
            "endpoints": json.dumps({"task": endpoints}),
            "requests": tmp_path / "ledger",
            "results": tmp_path / "answers.pkl",
            "output": tmp_path / "graded.pkl",
        }
        monkeypatch.setattr(sys, "argv", ["grade", *(str(x) for k, v in arguments.items() for x in (f"--{k}", v))])
        for _ in range(2):
            grade.main()
        assert [answer["reward"] for answer in read_pickle(tmp_path / "graded.pkl")] == [1.0, 0.0]
        assert (server.asked[right], server.asked[last]) == (1, 1)
        assert "budget" not in json.dumps(read_json(tmp_path / "graded.json"))


# ---------------------------------------------------------------- the config

CONFIG = {
    "name": "mine",
    "task": "recommend",
    "prompts": {"train": {"count": {"genre": 4}}, "eval": {"count": {"genre": 4}}},
    "model": {"path": "m"},
    "generate": {"trigger": None},
}


def test_stages_depend_on_the_endpoints_name_and_not_on_its_limits():
    section = {
        "grounding": {"embedder": "openai", "openai": endpoint("http://a") | LIMITS["openai"], "text": "{title}"}
    }
    cfg = load(CONFIG | {"recommend": section})
    wing = Wing(cfg, Run(cfg))
    assert wing.catalogue_grounding == {"openai": endpoint("http://a"), "text": "{title}"}
    assert wing.settings("grade")["grounding"]["openai"] == endpoint("http://a")
    stages = ("catalogue", "rerank", "generate", "grade", "evaluate")
    assert [stage for stage in stages if wing.calls_endpoint(stage)] == ["catalogue", "rerank", "generate", "grade"]
    assert wing.endpoints("grade")["grounding"]["openai"]["budget"] == 1.0
    assert not wing.loads_model("grade")

    plain = load(CONFIG)
    assert Wing(plain, Run(plain)).catalogue_grounding is None


def test_templates_reach_the_stages_as_they_are(tmp_path, info):
    grounding = {"embedder": "tfidf", "text": "{title}: {plot}", "query": "assistant: {utterance}"}
    values = CONFIG | {"shards": 1, "recommend": {"catalogue": info, "grounding": grounding}}
    copy = Copy(tmp_path / "copy", values | {"cold_start": None})
    copy.snakemake("runs/mine/catalogue/items.pkl")
    texts = [item["text"] for item in read_pickle(copy.folder / "runs/mine/catalogue/items.pkl")["items"]]
    assert texts[0] == "Silver Harbor (1968): A sheriff waits for a ship."
    assert "assistant: {utterance}" in copy.snakemake("-np", "round1_graded")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"embedder": "openai"}, "the section `openai`"),
        ({"openai": endpoint("http://a")}, "the section `openai`"),
        ({"vectors": "v.npy"}, "embedder tfidf compares no vectors"),
        ({"query": "query: "}, "it should contain {utterance}"),
    ],
)
def test_groundings_that_cannot_work(values, message):
    with pytest.raises(ValueError, match=message):
        Grounding.model_validate(values)
