"""Literal grounding, similarity and lists of items; and the scripted players."""

import random

import pytest

from tests.tasks.recommend.parts import ITEMS, NOT_THESE, RIGHT, catalogue_of, environment, settings, titles, turns
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.engines import Chat
from workflow_scripts.init_model import train_tokenizer
from workflow_scripts.tasks.recommend import players
from workflow_scripts.tasks.recommend.catalogue import vectors_of
from workflow_scripts.tasks.recommend.embedders import Encoder
from workflow_scripts.tasks.recommend.items import list_numbers, read_items, rewritten
from workflow_scripts.tasks.recommend.settings import Grounding

# ---------------------------------------------------------------- grounding


def test_titles_that_stand_in_an_utterance_come_first_in_its_order(path):
    catalogue = catalogue_of(path)
    text = "2. QUIET  garden and 1. silver harbor; e\u0301lan (1999)"
    assert titles(catalogue, catalogue.mentioned(text)) == ["Quiet Garden", "Silver Harbor", "Élan (1999)"]
    assert titles(catalogue, catalogue.mentioned("Harbors are nice, Harbor is too")) == ["Harbor"]
    assert catalogue.ranking(text)[:3] == catalogue.mentioned(text)
    assert sorted(catalogue.ranking(text)) == list(range(len(ITEMS)))


def test_similarity_finds_typing_errors_and_each_way_can_be_off(path, tmp_path):
    similar = catalogue_of(path, literal=False)
    assert titles(similar, similar.ranking("1. Crimsn Leter")[:1]) == ["Crimson Letter"]

    write_pickle(tmp_path / "exact.pkl", {"items": ITEMS, "embedder": None, "vectors": None})
    exact = catalogue_of(tmp_path / "exact.pkl", embedder=None)
    assert exact.ranking("1. Crimsn Leter") == ()
    assert titles(exact, exact.ranking("Harbor!")) == ["Harbor"]

    with pytest.raises(ValueError, match="without both, no utterance mentions any item"):
        settings(grounding={"embedder": None, "literal": False})


def test_a_catalogue_of_another_embedder_is_refused(path):
    with pytest.raises(BadInput, match=r"items.pkl: made for the embedder 'tfidf', not for 'some/encoder'"):
        environment(path, grounding={"embedder": "some/encoder"})


def test_an_encoder_is_a_hugging_face_model(tmp_path):
    from transformers import BertConfig, BertModel

    tokenizer = train_tokenizer(["Silver Harbor", "Crimson Letter"] * 50, 280)
    tokenizer.save_pretrained(tmp_path)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(tmp_path)

    vectors = vectors_of(ITEMS, Grounding(embedder=str(tmp_path)))
    assert vectors.shape == (5, 16) and (vectors**2).sum(-1) == pytest.approx([1] * 5)
    alone = [Encoder(str(tmp_path)).encode([item["text"]])[0] for item in ITEMS]  # padding changes nothing
    assert abs(vectors - alone).max() < 1e-5

    write_pickle(tmp_path / "items.pkl", {"items": ITEMS, "embedder": str(tmp_path), "vectors": vectors})
    catalogue = catalogue_of(tmp_path / "items.pkl", embedder=str(tmp_path), literal=False, top_k=1)
    assert catalogue.ranking("Crimson Letter")[0] == 2


def test_items_need_titles_of_their_own(tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text('{"title": "A", "genre": "x", "year": 1999, "text": "A by B"}\n{"title": " A "}\n')
    with pytest.raises(BadInput, match=r"items.jsonl, record 2: the title ' A ' occurs before"):
        read_items(str(file))

    file.write_text('{"title": "A", "genre": "x", "year": 1999, "text": "A by B"}\n')
    assert read_items(str(file)) == [{"title": "A", "text": "A by B", "attributes": {"genre": "x", "year": "1999"}}]

    file.write_text('{"title": null}\n')
    with pytest.raises(BadInput, match="record 1: title should be text, found None"):
        read_items(str(file))


def test_a_list_is_rewritten_hits_first_without_repeats_and_filled(path):
    catalogue = catalogue_of(path)
    text = "Try these.\n1. Silver Harbor\n2. Crimson Letter\n2. Silver Harbor\nDo you like them?"
    better = rewritten(catalogue, text, ["Crimson Letter"], 3)
    assert better.startswith("Try these.\n1. Crimson Letter\n2. Silver Harbor\n3. ")
    assert better.endswith("\nDo you like them?")
    assert rewritten(catalogue, "I say Harbor", ["Harbor"], 1) == "I say Harbor\n1. Harbor"


# ---------------------------------------------------------------- the players


def test_the_seeker_refuses_and_answers_and_names_nothing(path):
    seeker = players.ScriptedSeeker(catalogue_of(path))
    assert seeker.line(["Harbor"], RIGHT) == NOT_THESE
    assert seeker.line(["Harbor"], "What decade do you like?") == "I like seventies (decade)."
    assert seeker.line(["Harbor"], "Which genre and decade?") == "I like western (genre), seventies (decade)."
    assert seeker.line(["Harbor"], "How are you?") == "I do not mind."


def test_the_teacher_recommends_what_fits_and_nothing_twice(path):
    catalogue = catalogue_of(path)
    teacher = players.ScriptedTeacher(catalogue, 2)
    dialog = [{"role": "user", "content": "A western, please."}]

    lines = [teacher.generate([Chat(dialog, seed, 50)])[0].text for seed in range(40)]
    questions = [line for line in lines if line.endswith("?")]
    assert 5 < len(questions) < 25 and set(questions) == {"What decade do you like?"}
    lists = [line for line in lines if line not in questions]
    shown = {title for line in lists for title in titles(catalogue, catalogue.mentioned(line))}
    assert shown == {"Silver Harbor", "Harbor"}  # both westerns

    again = teacher.line(dialog + turns(lists[0], NOT_THESE), random.Random(0))
    assert not {"Silver Harbor", "Harbor"} & set(titles(catalogue, catalogue.mentioned(again)))
    assert list_numbers(again) == [1, 2]


def test_a_title_is_mentioned_without_its_year_and_as_words():
    assert players.mentions("I loved the matrix, and you?", "The Matrix (1999)")
    assert players.mentions("Have you seen Up?", "Up (2009)")
    assert not players.mentions("Let us stay up for supper", "Up")
    assert not players.mentions("Harbors are nice", "Harbor")
