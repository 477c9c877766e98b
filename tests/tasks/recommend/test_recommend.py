"""The recommend task's pieces: grounding, the players, the environment, what a round learns from; and bad input."""

import json
import math
import os
import random
import subprocess
import sys

import pytest

from workflow_scripts import add_base_turn, make_sft_data
from workflow_scripts.core.chat import continuation, encode_turns
from workflow_scripts.core.dialogue_sections import Recommend
from workflow_scripts.core.records import BadInput, write_pickle
from workflow_scripts.core.sections import Prompts
from workflow_scripts.dialogues import invented, players
from workflow_scripts.dialogues.catalogue import Catalogue, item, numbered, read_items, rewritten
from workflow_scripts.dialogues.environment import Environment, figures_of
from workflow_scripts.engines import Chat, Completion
from workflow_scripts.engines.conversation import converse, converse_in_text, foreign, well_formed
from workflow_scripts.freeze_prompts import freeze
from workflow_scripts.init_model import train_tokenizer
from workflow_scripts.tasks import recommend

ITEMS = [
    item("Silver Harbor", None, {"genre": "western", "decade": "sixties"}),
    item("Harbor", None, {"genre": "western", "decade": "seventies"}),
    item("Crimson Letter", None, {"genre": "comedy", "decade": "sixties"}),
    item("Quiet Garden", None, {"genre": "comedy", "decade": "seventies"}),
    item("Élan (1999)", None, {"genre": "comedy", "decade": "nineties"}),
]
RIGHT = "You may like:\n1. Quiet Garden\n2. Harbor"


@pytest.fixture
def path(tmp_path):
    write_pickle(tmp_path / "items.pkl", {"items": ITEMS, "embedder": "tfidf", "vectors": None})
    return tmp_path / "items.pkl"


def settings(**changes) -> dict:
    values = {"grounding": {"top_k": 2}, "list_length": 2, "resamples": 2}
    return Recommend.model_validate(values | changes).model_dump(mode="json")


def environment(path, version="auto", **changes) -> Environment:
    return Environment(settings(**changes), str(path), version)


def record(targets=("Harbor",), text="A western, please."):
    prompts = Prompts(eval={"count": {"genre": 1}}).model_dump(mode="json")
    return recommend.prompt([{"role": "user", "content": text}], list(targets), prompts, "genre")


def said(*texts) -> list[dict]:
    return [{"role": ("assistant", "user")[i % 2], "content": text} for i, text in enumerate(texts)]


# ---------------------------------------------------------------- grounding


def titles(catalogue, numbers):
    return [catalogue.items[number]["title"] for number in numbers]


def test_titles_that_stand_in_an_utterance_come_first_in_its_order(path):
    catalogue = environment(path).catalogue
    text = "2. QUIET  garden and 1. silver harbor; e\u0301lan (1999)"
    assert titles(catalogue, catalogue.named(text)) == ["Quiet Garden", "Silver Harbor", "Élan (1999)"]
    assert titles(catalogue, catalogue.named("Harbors are nice, Harbor is too")) == ["Harbor"]
    assert catalogue.ranking(text)[:3] == catalogue.named(text) and len(catalogue.ranking(text)) == len(ITEMS)


def test_likeness_finds_what_is_written_wrongly_and_each_way_can_be_off(path):
    alike = environment(path, grounding={"literal": False, "top_k": 2}).catalogue
    assert titles(alike, alike.ranking("1. Crimsn Leter")[:1]) == ["Crimson Letter"]
    exact = Catalogue(path, {"embedder": "tfidf", "literal": True, "top_k": 2})
    exact.settings = exact.settings | {"embedder": None}
    assert exact.ranking("1. Crimsn Leter") == [] and titles(exact, exact.ranking("Harbor!")) == ["Harbor"]
    with pytest.raises(ValueError, match="else no utterance speaks of any item"):
        settings(grounding={"embedder": None, "literal": False})


def test_a_catalogue_of_another_embedder_is_refused(path):
    with pytest.raises(BadInput, match=r"items.pkl: made for the embedder 'tfidf', not for 'some/encoder'"):
        environment(path, grounding={"embedder": "some/encoder"})


def test_an_encoder_is_a_hugging_face_model(tmp_path):
    from transformers import BertConfig, BertModel

    from workflow_scripts.catalogue import vectors_of
    from workflow_scripts.dialogues.catalogue import Encoder

    tokenizer = train_tokenizer(["Silver Harbor", "Crimson Letter"] * 50, 280)
    tokenizer.save_pretrained(tmp_path)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(tmp_path)
    vectors = vectors_of(ITEMS, str(tmp_path))
    assert vectors.shape == (5, 16) and (vectors**2).sum(-1) == pytest.approx([1] * 5)
    alone = [Encoder(str(tmp_path)).encode([one["text"]])[0] for one in ITEMS]  # padding changes nothing
    assert abs(vectors - alone).max() < 1e-5
    grounding = {"embedder": str(tmp_path), "literal": False, "top_k": 1}
    write_pickle(tmp_path / "items.pkl", {"items": ITEMS, "embedder": str(tmp_path), "vectors": vectors})
    assert Catalogue(tmp_path / "items.pkl", grounding).ranking("Crimson Letter")[0] == 2


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
    catalogue = environment(path).catalogue
    text = "Try these.\n1. Silver Harbor\n2. Crimson Letter\n2. Silver Harbor\nDo you like them?"
    assert rewritten(catalogue, text, ["Crimson Letter"], 3).startswith(
        "Try these.\n1. Crimson Letter\n2. Silver Harbor\n3. "
    )
    assert rewritten(catalogue, text, ["Crimson Letter"], 3).endswith("\nDo you like them?")
    assert rewritten(catalogue, "I say Harbor", ["Harbor"], 1) == "I say Harbor\n1. Harbor"


# ---------------------------------------------------------------- the players


def test_the_seeker_refuses_and_answers_and_names_nothing(path):
    seeker = players.ScriptedSeeker(environment(path).catalogue)
    assert seeker.line(["Harbor"], RIGHT) == "No, not these. Something else, please."
    assert seeker.line(["Harbor"], "What decade do you like?") == "I like seventies (decade)."
    assert seeker.line(["Harbor"], "Which genre and decade?") == "I like western (genre), seventies (decade)."
    assert seeker.line(["Harbor"], "How are you?") == "I do not mind."


def test_the_teacher_recommends_what_fits_and_nothing_twice(path):
    catalogue = environment(path).catalogue
    teacher = players.ScriptedTeacher(catalogue, 2)
    heard = [{"role": "user", "content": "A western, please."}]
    lines = [teacher.generate([Chat(heard, seed, 50)])[0].text for seed in range(40)]
    asks = [line for line in lines if line.endswith("?")]
    assert 5 < len(asks) < 25 and set(asks) == {"What decade do you like?"}
    shown = {title for line in lines if line not in asks for title in titles(catalogue, catalogue.named(line))}
    assert shown == {"Silver Harbor", "Harbor"}  # both westerns
    heard += said(next(line for line in lines if line not in asks), "No, not these. Something else, please.")
    again = teacher.line(heard, random.Random(0))
    assert not {"Silver Harbor", "Harbor"} & set(titles(catalogue, catalogue.named(again))) and numbered(again) == [
        1,
        2,
    ]


def test_a_title_is_named_without_its_year_and_as_words():
    assert players.named("The Matrix (1999)", "I loved the matrix, and you?")
    assert players.named("Up (2009)", "Have you seen Up?") and not players.named("Up", "Let us stay up for supper")
    assert not players.named("Harbor", "Harbors are nice")


# ---------------------------------------------------------------- the environment


def test_a_dialogue_ends_at_a_hit_and_with_osr_at_the_first_list(path):
    wrong = "1. Crimson Letter\n2. Élan (1999)"
    for version, hardcore, ends in (("auto", False, False), ("auto", True, True), ("eval", True, False)):
        played = environment(path, version, hardcore=hardcore)
        replies = played.replies([record()] * 3, [said(RIGHT), said(wrong), said("What decade do you like?")])
        assert replies[0] == (None, None) and replies[2] == ("I like seventies (decade).", None)
        assert replies[1] == (None if ends else "No, not these. Something else, please.", None)


def test_a_question_is_no_hit_though_it_resembles_a_title(path):
    played = environment(path)
    assert played.hit("Do you like harbours?", ["Harbor"])  # by likeness alone
    assert not played.judge(said("Do you like harbours?"), ["Harbor"])["success"]


def test_a_dialogue_is_judged_by_its_first_hit(path):
    wrong = "1. Crimson Letter\n2. Élan (1999)"
    judged = environment(path).judge(
        said("What decade?", "seventies", wrong, "No.", RIGHT), ["Harbor", "Silver Harbor"]
    )
    assert (judged["success"], judged["interactions"], judged["ranks"][0]) == (True, 3, 2)
    failed = environment(path).judge(said(wrong, "No.", "And now?"), ["Harbor"])
    assert (failed["success"], failed["interactions"]) == (False, 2) and failed["ranks"][0] > 2


def test_the_form_of_lists(path):
    faults = [
        environment(path).fault(said(text)) for text in (RIGHT, RIGHT + "\n3. Silver Harbor", "1. Harbor", "What?")
    ]
    assert faults == [None, *["a list that is not numbered from 1 to 2"] * 2, None]
    assert environment(path, off_formatcheck=True).fault(said("1. Harbor")) is None
    assert environment(path, rec_format_check=True).fault(said("What?")) == "nothing is recommended"


def test_figures_of_ranks_by_hand():
    found = figures_of([1, 6, None, 12])
    assert found == pytest.approx(
        {"hit_1": 1 / 4, "hit_5": 1 / 4, "hit_10": 2 / 4, "mrr": (1 + 1 / 6 + 1 / 12) / 4}
        | {"ndcg_10": (1 + 1 / math.log2(7)) / 4}
    )
    records = [
        {"level": "a", "success": True, "interactions": 2, "ranks": [1]},
        {"level": "b", "success": False, "interactions": 3, "ranks": [None]},
    ]
    summary = recommend.summarise(records)
    assert (summary["success"], summary["turns"], summary["success_by_turn"]) == (0.5, 2.5, [0, 0.5])
    assert set(summary["by_level"]["b"]) >= set(recommend.FIGURES)


# ---------------------------------------------------------------- rollouts


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([RIGHT, "What decade do you like?", "User:A western, please.\n\nAssistant:"] * 20, 320)


class Speaker:
    """An engine that says its lines, one per request."""

    def __init__(self, tokenizer, lines):
        self.tokenizer, self.lines, self.asked = tokenizer, list(lines), []

    def generate(self, requests):
        self.asked += requests
        tokens = [self.tokenizer.encode(self.lines.pop(0)) + [self.tokenizer.eos_token_id] for _ in requests]
        return [Completion(one, "eos", [-0.5] * len(one)) for one in tokens]


def jobs(tokenizer, count=1):
    one = {"record": record(), "prompt_tokens": tokenizer.encode("User:A western, please.\n\nAssistant:")}
    return [one | {"uid": f"q.auto.{number}"} for number in range(count)]


SAMPLING = {"turns": 2, "max_tokens": 200}


def test_a_rollout_is_tokenised_as_the_cold_start_was(path, tokenizer):
    engine = Speaker(tokenizer, ["What decade do you like?", RIGHT])
    state = converse(jobs(tokenizer), engine, recommend, environment(path), SAMPLING, "0", "deepseek")[0]
    assert [turn["content"] for turn in state["turns"]][1] == "I like seventies (decade)."
    messages = [{"role": "user", "content": "A western, please."}, *state["turns"]]
    learnt = encode_turns(tokenizer, "deepseek", messages, 1)
    assert (state["tokens"], state["mask"]) == (learnt["tokens"], learnt["mask"])
    theirs = [token for token, own in zip(state["tokens"], state["mask"]) if not own]
    assert tokenizer.decode(theirs) == "User:I like seventies (decade).\n\nAssistant:"
    assert len(state["logps"]) == sum(state["mask"])


def test_a_teacher_in_the_policys_place_gives_the_same_rows(path, tokenizer):
    class Teacher:
        def generate(self, chats):
            texts = {1: "What decade do you like?", 3: RIGHT}
            return [players.Reply(texts[len(chat.messages)], "eos", None, 5) for chat in chats]

    asked = [job | {"messages": [{"role": "user", "content": "A western, please."}]} for job in jobs(tokenizer)]
    state = converse_in_text(asked, Teacher(), recommend, environment(path), SAMPLING, "0")[0]
    engine = Speaker(tokenizer, ["What decade do you like?", RIGHT])
    sampled = converse(jobs(tokenizer), engine, recommend, environment(path), SAMPLING, "0", "deepseek")[0]
    row = foreign(state, recommend, tokenizer, "deepseek")
    assert all(row[key] == sampled[key] for key in ("tokens", "mask", "turns")) and row["logps"] == []


@pytest.mark.parametrize("form", ["chatml", "llama"])
def test_what_the_seeker_says_is_written_by_the_chat_template(tokenizer, form):
    mark = {"chatml": "<|im_start|>{}\n", "llama": "<|{}|>\n\n"}[form]
    body = "{% for m in messages %}" + mark.format("{{ m['role'] }}") + "{{ m['content'] }}<eos>\n{% endfor %}"
    tokenizer.chat_template = body + "{% if add_generation_prompt %}" + mark.format("assistant") + "{% endif %}"
    expected = f"\n{mark.format('user')}Hi there<eos>\n{mark.format('assistant')}"
    assert continuation(tokenizer, "chat", "Hi there") == expected


def test_a_rollout_of_the_wrong_form_is_drawn_again_a_bounded_number_of_times(path, tokenizer):
    played = environment(path, hardcore=True)
    engine = Speaker(tokenizer, ["1. Harbor", "1. Harbor", RIGHT, "1. Harbor", "1. Harbor"])
    states = well_formed(jobs(tokenizer, 2), engine, recommend, played, SAMPLING, "0", "deepseek")
    assert [(s["drawn"], bool(s["fault"])) for s in states] == [(2, False), (3, True)]
    assert len({request.seed for request in engine.asked}) == 5  # none is repeated
    verdicts = [
        recommend.grade({"turns": s["turns"], "correct": '["Harbor"]', "fault": s["fault"]}, played) for s in states
    ]
    assert [v["reward"] for v in verdicts] == [1, 0] and verdicts[1]["success"]


class Leaky(players.ScriptedSeeker):
    def answer(self, dialogues):
        return [
            reply if i else players.Reply("", "eos", "empty", 0) for i, reply in enumerate(super().answer(dialogues))
        ]


def test_a_rollout_that_the_seeker_spoils_is_a_reject(path, tokenizer):
    played = environment(path)
    played.seeker = Leaky(played.catalogue)
    engine = Speaker(tokenizer, ["What decade do you like?"] * 2 + [RIGHT])
    states = well_formed(jobs(tokenizer, 2), engine, recommend, played, SAMPLING, "0", "deepseek")
    assert states[0]["rejected"] == "the seeker: empty" and not states[1].get("rejected")


# ---------------------------------------------------------------- what a round learns from


def graded(path, uid, text, tokenizer, **changes):
    played, turns = environment(path, **changes), said(text)
    tokens = tokenizer.encode(text) + [tokenizer.eos_token_id]
    one = record()
    shared = {"id": one["id"], "question": one["question"], "correct": one["answer"], "req": "r", "task": "genre"}
    shared |= {"uid": uid, "solution": text, "prompt_tokens": [1], "tokens": tokens, "mask": [1] * len(tokens)}
    shared |= {"policy": "p", "finish": "eos", "turns": turns}
    return shared | recommend.grade(shared, played)


def test_a_rewritten_list_is_a_foreign_row_of_its_own(path, tokenizer):
    rows = [
        graded(path, f"a{i}", text, tokenizer, rerank=True) for i, text in enumerate([RIGHT, "1. Élan (1999)\n2. X"])
    ]
    meta = recommend.construct_meta(rows, False)

    def encode(pieces):
        ids = [token for text, _ in pieces for token in tokenizer.encode(text)] + [tokenizer.eos_token_id]
        return ids, [1] * len(ids)

    made, dropped = recommend.select({"auto": meta}, {"advantage": "group", "advantage_clip": None}, 0, encode)
    assert not dropped and [(row["qid"], row["policy"], row["advantage"]) for row in made] == [
        ("a0", "p", 0.5), ("a1", "p", -0.5), ("a0.reranked", "foreign", 0.5)
    ]  # fmt: skip
    assert tokenizer.decode(made[2]["tokens"]) == "You may like:\n1. Harbor\n2. Quiet Garden<eos>"
    assert made[0]["tokens"] == rows[0]["tokens"]  # what was sampled stays as it was
    plain = recommend.construct_meta([graded(path, "a0", RIGHT, tokenizer)], False)
    assert [answer["reranked"] for entry in plain.values() for answer in entry["resps"]] == [None]


def taught(**changes):
    line = {"id": "d", "rec_success": True, "generated_dialog": said("a", "b", "c", "d", "e", "f", RIGHT)}
    line["base_turn"] = add_base_turn.base_turn(line)
    return [make_sft_data.taught(line, settings(explore={}, **changes), 2, seed) for seed in range(20)]


def test_a_rollout_may_begin_with_the_teacher():
    assert {len(start) for start in taught()} == {0}
    assert all(start == said("a", "b", "c", "d") for start in taught(tgi=True))  # 4 interactions, 2 remain
    assert {len(start) for start in taught(new_tgi=True)} == {0, 2, 4}


def test_beginnings_are_disjoint_seeded_and_grouped_with_their_targets():
    values = Prompts(pool={"count": {"genre": 200}}, eval={"count": {"genre": 100}}).model_dump(mode="json")
    pool, held_out = (list(recommend.read_prompts(values[name], values, name, 0)) for name in ("pool", "eval"))
    assert pool == list(recommend.read_prompts(values["pool"], values, "pool", 0))
    assert len({one["question"] for one in pool + held_out}) == 300
    assert {json.loads(one["answer"])[0] for one in pool} <= {film["title"] for film in invented.items()}
    with pytest.raises(BadInput, match=r"prompts\.eval\.count\.genre: 601 dialogues asked, there are 600"):
        list(invented.dialogues("genre", "eval", 601, 0))


def test_the_instruction_stands_before_the_first_words():
    prompts = Prompts(eval={"count": {"genre": 1}}, instruction="Be brief.", history=2).model_dump(mode="json")
    dialog = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
    asked = recommend.requests(recommend.prompt(dialog, ["X"], prompts, "l")["question"], "auto")["auto"]
    assert asked == [{"role": "user", "content": "Be brief."}, *dialog[1:]]
    assert recommend.instructed(dialog, "Be brief.")[0]["content"] == "Be brief.\n\nuser"
    with pytest.raises(BadInput, match=r"set generate.trigger to null"):
        recommend.requests("{}", "trigger")


# ---------------------------------------------------------------- memory


def peak_of_exploring(folder, count: int) -> float:
    """MiB that exploring so many dialogues takes."""
    environment = {"grounding": {"top_k": 3}, "list_length": 3, "explore": {"end": count}}
    command = [sys.executable, "-m", "workflow_scripts.explore", "--task", "recommend"]
    command += ["--prompts", folder / "pool.parquet", "--catalogue", folder / "items.pkl"]
    command += ["--environment", json.dumps(environment), "--output", folder / f"{count}.jsonl"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0 and len((folder / f"{count}.jsonl").read_text().splitlines()) == count
    return used.ru_maxrss / 1024


def test_memory_hardly_grows_with_the_dialogues(tmp_path):
    """2,000 are twice INSPIRED's; a transcript is a few kB."""
    splits = Prompts(pool={"count": {"genre": 2000}}, eval={"count": {"genre": 1}}).model_dump(mode="json")
    freeze(recommend, splits, 0, tmp_path)
    write_pickle(tmp_path / "items.pkl", {"items": invented.items(), "embedder": "tfidf", "vectors": None})
    assert peak_of_exploring(tmp_path, 2000) - peak_of_exploring(tmp_path, 100) < 40
