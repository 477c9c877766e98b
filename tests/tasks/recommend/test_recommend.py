"""The pieces of the task recommend: grounding, players, environment, what a round learns from; and bad input."""

import json
import math
import os
import random
import subprocess
import sys

import pytest

from tests.harness import REPOSITORY, Copy
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import load
from workflow_scripts.config.sections import Prompts as PromptsSection
from workflow_scripts.config.sections import settings_of
from workflow_scripts.core.chat import continuation, encode_turns
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_parquet
from workflow_scripts.core.identity import digest
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.engines import Chat, Completion
from workflow_scripts.freeze_prompts import check_edited, freeze
from workflow_scripts.init_model import train_tokenizer
from workflow_scripts.rollout.environment import Conversation as Rollout
from workflow_scripts.rollout.loop import TextSpeaker, TokenSpeaker, converse, encode_foreign, play
from workflow_scripts.tasks import load as load_part
from workflow_scripts.tasks.defaults import EnvironmentOptions
from workflow_scripts.tasks.recommend import add_base_turn, invented, make_sft_data, players
from workflow_scripts.tasks.recommend.catalogue import vectors_of
from workflow_scripts.tasks.recommend.dialogues import canonical, instructed
from workflow_scripts.tasks.recommend.embedders import Encoder
from workflow_scripts.tasks.recommend.environment import SeekerEnvironment
from workflow_scripts.tasks.recommend.evaluation import Evaluation
from workflow_scripts.tasks.recommend.grading import Grading
from workflow_scripts.tasks.recommend.items import Catalogue, list_numbers, make_item, read_items, rewritten
from workflow_scripts.tasks.recommend.outcomes import is_hit, outcome_of, rank_metrics, ranks
from workflow_scripts.tasks.recommend.prompts import Prompts
from workflow_scripts.tasks.recommend.selection import Selection
from workflow_scripts.tasks.recommend.settings import Grounding, Settings
from workflow_scripts.tasks.recommend.wing import Wing

ITEMS = [
    make_item("Silver Harbor", None, {"genre": "western", "decade": "sixties"}),
    make_item("Harbor", None, {"genre": "western", "decade": "seventies"}),
    make_item("Crimson Letter", None, {"genre": "comedy", "decade": "sixties"}),
    make_item("Quiet Garden", None, {"genre": "comedy", "decade": "seventies"}),
    make_item("Élan (1999)", None, {"genre": "comedy", "decade": "nineties"}),
]
RIGHT = "You may like:\n1. Quiet Garden\n2. Harbor"
WRONG = "1. Crimson Letter\n2. Élan (1999)"
VALUES = {"grounding": {"top_k": 2}, "list_length": 2, "resamples": 2}
NOT_THESE = "No, not these. Something else, please."


@pytest.fixture
def path(tmp_path):
    write_pickle(tmp_path / "items.pkl", {"items": ITEMS, "embedder": "tfidf", "vectors": None})
    return tmp_path / "items.pkl"


def settings(**changes) -> Settings:
    return Settings.model_validate(VALUES | changes)


def catalogue_of(path, **grounding) -> Catalogue:
    return Catalogue(path, Grounding(**{"top_k": 2} | grounding))


def environment(path, version="auto", **changes) -> SeekerEnvironment:
    conversation = load_part("recommend", "Conversation", VALUES | changes, {"catalogue": str(path)})
    return conversation.environment(version, EnvironmentOptions())


def grading(path, **changes) -> Grading:
    return Grading(VALUES | changes, {"catalogue": str(path)})


def prompt(targets=("Harbor",), text="A western, please.", **changes):
    return Prompts(changes, {}).prompt([{"role": "user", "content": text}], list(targets), "genre")


def turns(*texts) -> list[dict]:
    return [{"role": ("assistant", "user")[i % 2], "content": text} for i, text in enumerate(texts)]


def rollout(*texts, uid="q.auto.0") -> Rollout:
    return Rollout(uid, prompt(), turns=turns(*texts))


# ---------------------------------------------------------------- grounding


def titles(catalogue, numbers) -> list[str]:
    return [catalogue.items[number]["title"] for number in numbers]


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


# ---------------------------------------------------------------- the environment


@pytest.mark.parametrize(
    ("version", "hardcore", "ends"), [("auto", False, False), ("auto", True, True), ("eval", True, False)]
)
def test_a_dialogue_ends_at_a_hit_and_with_osr_at_the_first_list(path, version, hardcore, ends):
    seeker = environment(path, version, hardcore=hardcore)
    right, wrong, question = seeker.reply([rollout(RIGHT), rollout(WRONG), rollout("What decade do you like?")])
    assert right.text is None and not right.rejected
    assert wrong.text == (None if ends else NOT_THESE)
    assert question.text == "I like seventies (decade)."


def test_a_question_is_no_hit_though_it_resembles_a_title(path):
    catalogue = catalogue_of(path)
    assert is_hit(catalogue, ranks(catalogue, "Do you like harbours?", ["Harbor"]))  # by similarity alone
    assert not outcome_of(catalogue, turns("Do you like harbours?"), ["Harbor"]).success


def test_a_dialogue_is_judged_by_its_first_hit(path):
    catalogue = catalogue_of(path)
    dialogue = turns("What decade?", "seventies", WRONG, "No.", RIGHT)
    outcome = outcome_of(catalogue, dialogue, ["Harbor", "Silver Harbor"])
    assert (outcome.success, outcome.interactions, outcome.ranks[0]) == (True, 3, 2)

    failed = outcome_of(catalogue, turns(WRONG, "No.", "And now?"), ["Harbor"])
    assert (failed.success, failed.interactions) == (False, 2) and failed.ranks[0] > 2


def test_the_form_of_lists(path):
    texts = (RIGHT, RIGHT + "\n3. Silver Harbor", "1. Harbor", "What?")
    faults = [environment(path).fault(rollout(text)) for text in texts]
    assert faults == [None, *["a list that is not numbered from 1 to 2"] * 2, None]
    assert environment(path, off_formatcheck=True).fault(rollout("1. Harbor")) is None
    assert environment(path, rec_format_check=True).fault(rollout("What?")) == "nothing is recommended"
    assert environment(path, "eval", rec_format_check=True).fault(rollout("1. Harbor")) is None


def test_rewards_of_dialogues(path):
    def grade(*texts, fault=None, **changes):
        answer = {"turns": turns(*texts), "reference": ["Harbor"]} | ({"fault": fault} if fault else {})
        return grading(path, **changes).grade(answer, None)

    assert grade(RIGHT)["reward"] == 1 and grade(RIGHT)["reranked"] is None
    assert grade("What decade?", "seventies", RIGHT, bonus=0.5)["reward"] == 1.25
    assert grade(WRONG)["reward"] == 0 and grade(WRONG, reward=0.7)["reward"] == -0.7
    spoilt = grade(RIGHT, fault="a list that is not numbered from 1 to 2", reward=0.7)
    assert spoilt["reward"] == -0.7 and spoilt["success"]
    assert grade(RIGHT, rerank=True)["reranked"] == "You may like:\n1. Harbor\n2. Quiet Garden"
    assert grade(RIGHT, "Thanks.", "Bye.", rerank=True)["reranked"] is None  # the hit is not the last utterance


def test_metrics_of_ranks_by_hand():
    assert rank_metrics([1, 6, None, 12]) == pytest.approx(
        {"hit_1": 1 / 4, "hit_5": 1 / 4, "hit_10": 2 / 4, "mrr": (1 + 1 / 6 + 1 / 12) / 4}
        | {"ndcg_10": (1 + 1 / math.log2(7)) / 4}
    )
    answers = [
        {"level": "a", "success": True, "interactions": 2, "ranks": [1]},
        {"level": "b", "success": False, "interactions": 3, "ranks": [None]},
    ]
    evaluation = Evaluation({}, {})
    summary = evaluation.summarise(answers)
    assert (summary["success"], summary["turns"], summary["success_by_turn"]) == (0.5, 2.5, [0, 0.5])
    assert (summary["mrr"], summary["n"]) == (0.5, 2)
    assert set(summary["by_level"]["b"]) >= set(evaluation.metrics)


# ---------------------------------------------------------------- rollouts


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([RIGHT, "What decade do you like?", "User:A western, please.\n\nAssistant:"] * 20, 320)


class Engine:
    """An engine that says its lines, one per request."""

    version: dict = {}  # noqa: RUF012
    window = 4096

    def __init__(self, tokenizer, lines):
        self.tokenizer = tokenizer
        self.lines = list(lines)
        self.requests = []

    def generate(self, requests):
        self.requests += requests
        tokens = [self.tokenizer.encode(self.lines.pop(0)) + [self.tokenizer.eos_token_id] for _ in requests]
        return [Completion(ids, "eos", [-0.5] * len(ids)) for ids in tokens]


SAMPLING = {"turns": 2, "max_tokens": 200}


def rollouts(count=1) -> list[Rollout]:
    return [Rollout(f"q.auto.{number}", prompt()) for number in range(count)]


def prompt_tokens(tokenizer, count=1) -> dict[str, list[int]]:
    tokens = tokenizer.encode("User:A western, please.\n\nAssistant:")
    return {f"q.auto.{number}": tokens for number in range(count)}


def sampled(tokenizer, path, *lines) -> Rollout:
    """Return a dialogue in which the policy says these lines."""
    conversations = rollouts()
    seeker = environment(path)
    speaker = TokenSpeaker(Engine(tokenizer, lines), prompt_tokens(tokenizer), seeker, "deepseek", 200, "0")
    converse(conversations, speaker, seeker, SAMPLING["turns"])
    return conversations[0]


def test_a_rollout_is_tokenised_as_the_cold_start_was(path, tokenizer):
    conversation = sampled(tokenizer, path, "What decade do you like?", RIGHT)
    assert [turn["content"] for turn in conversation.turns][1] == "I like seventies (decade)."

    messages = [{"role": "user", "content": "A western, please."}, *conversation.turns]
    learnt = encode_turns(tokenizer, "deepseek", messages, 1)
    assert (conversation.tokens, conversation.mask) == (learnt["tokens"], learnt["mask"])

    masked = [token for token, own in zip(conversation.tokens, conversation.mask) if not own]
    assert tokenizer.decode(masked) == "User:I like seventies (decade).\n\nAssistant:"
    assert len(conversation.logps) == sum(conversation.mask)


def test_a_teacher_in_the_policys_place_gives_the_same_tokens(path, tokenizer):
    class Teacher:
        def generate(self, chats):
            texts = {1: "What decade do you like?", 3: RIGHT}
            return [players.Reply(texts[len(chat.messages)], "eos", None, 5) for chat in chats]

    seeker = environment(path)
    conversations = rollouts()
    requests = {"q.auto.0": [{"role": "user", "content": "A western, please."}]}
    converse(conversations, TextSpeaker(Teacher(), requests, seeker, 200, "0"), seeker, SAMPLING["turns"])
    encode_foreign(conversations[0], [], seeker, tokenizer, "deepseek")

    expected = sampled(tokenizer, path, "What decade do you like?", RIGHT)
    for field in ("tokens", "mask", "turns"):
        assert getattr(conversations[0], field) == getattr(expected, field)
    assert conversations[0].logps == []


def test_the_seeker_has_no_last_word(path, tokenizer):
    conversation = sampled(tokenizer, path, "What decade do you like?", "What genre do you like?")
    assert [turn["role"] for turn in conversation.turns] == ["assistant", "user", "assistant"]


@pytest.mark.parametrize("form", ["chatml", "llama"])
def test_what_the_seeker_says_is_written_by_the_chat_template(tokenizer, form):
    mark = {"chatml": "<|im_start|>{}\n", "llama": "<|{}|>\n\n"}[form]
    body = "{% for m in messages %}" + mark.format("{{ m['role'] }}") + "{{ m['content'] }}<eos>\n{% endfor %}"
    tokenizer.chat_template = body + "{% if add_generation_prompt %}" + mark.format("assistant") + "{% endif %}"
    expected = f"\n{mark.format('user')}Hi there<eos>\n{mark.format('assistant')}"
    assert continuation(tokenizer, "chat", "Hi there") == expected


def test_a_rollout_of_the_wrong_form_is_drawn_again_a_bounded_number_of_times(path, tokenizer):
    seeker = environment(path, hardcore=True)
    engine = Engine(tokenizer, ["1. Harbor", "1. Harbor", RIGHT, "1. Harbor", "1. Harbor"])
    finished = play(rollouts(2), engine, prompt_tokens(tokenizer, 2), seeker, "deepseek", SAMPLING, "0")
    assert [(conversation.draws, bool(conversation.fault)) for conversation in finished] == [(2, False), (3, True)]
    assert len({request.seed for request in engine.requests}) == 5  # no seed is repeated

    grades = [
        grading(path).grade({"turns": conversation.turns, "reference": ["Harbor"], "fault": conversation.fault}, None)
        for conversation in finished
    ]
    assert [grade["reward"] for grade in grades] == [1, 0] and grades[1]["success"]


class SpoilingSeeker(players.ScriptedSeeker):
    """A seeker whose answer in the first dialogue cannot be used."""

    def answer(self, dialogues):
        replies = super().answer(dialogues)
        return [players.Reply("", "eos", "empty", 0), *replies[1:]]


def test_a_rollout_that_the_seeker_spoils_is_a_reject(path, tokenizer):
    seeker = environment(path)
    seeker.seeker = SpoilingSeeker(seeker.catalogue)
    engine = Engine(tokenizer, ["What decade do you like?"] * 2 + [RIGHT])
    finished = play(rollouts(2), engine, prompt_tokens(tokenizer, 2), seeker, "deepseek", SAMPLING, "0")
    assert finished[0].rejected == "the seeker: empty" and not finished[1].rejected


# ---------------------------------------------------------------- what a round learns from


def graded(path, uid, text, tokenizer, targets=("Harbor",), request="A western, please.", **changes) -> dict:
    tokens = tokenizer.encode(text) + [tokenizer.eos_token_id]
    answer = {
        **prompt(targets, request),
        "uid": uid,
        "prompt_text": "r",
        "answer": text,
        "prompt_tokens": [1],
        "tokens": tokens,
        "mask": [1] * len(tokens),
        "policy": "p",
        "finish": "eos",
        "turns": turns(text),
    }
    return answer | grading(path, **changes).grade(answer, None)


def encoder(tokenizer):
    def encode(pieces):
        ids = [token for text, _ in pieces for token in tokenizer.encode(text)] + [tokenizer.eos_token_id]
        return ids, [1] * len(ids)

    return encode


DATA = {"advantage": "group", "advantage_clip": None}


def test_a_rewritten_list_is_a_foreign_row_of_its_own(path, tokenizer):
    answers = [
        graded(path, f"a{i}", text, tokenizer, rerank=True) for i, text in enumerate([RIGHT, "1. Élan (1999)\n2. X"])
    ]
    selection = Selection({}, {})
    meta = selection.construct_meta(answers, False)
    rows, dropped = selection.select({"auto": meta}, DATA, 0, encoder(tokenizer))

    assert not dropped and [(row["uid"], row["policy"], row["advantage"], row["kind"]) for row in rows] == [
        ("a0", "p", 0.5, "auto"),
        ("a1", "p", -0.5, "auto"),
        ("a0.reranked", "foreign", 0.5, "auto.reranked"),
    ]
    assert tokenizer.decode(rows[2]["tokens"]) == "You may like:\n1. Harbor\n2. Quiet Garden<eos>"
    assert rows[0]["tokens"] == answers[0]["tokens"]  # what was sampled stays as it was

    plain = selection.construct_meta([graded(path, "a0", RIGHT, tokenizer)], False)
    assert [answer["reranked"] for entry in plain.values() for answer in entry["answers"]] == [None]


def test_rows_are_ordered_by_the_json_text_of_the_dialogue_and_grouped_with_their_targets(path, tokenizer):
    """Between "W" and a quotation mark, JSON orders the other way round than plain text, for its backslash."""
    prompts = [(["Silver Harbor"], "A Western?"), (["Harbor"], 'A "Western"?'), (["Harbor"], "A Western?")]
    answers = []
    for number, (targets, request) in enumerate(prompts):
        for sample, text in enumerate((RIGHT, WRONG)):
            answers.append(graded(path, f"{number}.{sample}", text, tokenizer, targets, request))

    selection = Selection({}, {})
    meta = selection.construct_meta(answers, False)
    rows, _ = selection.select({"auto": meta}, DATA | {"advantage": "raw"}, 0, encoder(tokenizer))
    assert [row["uid"] for row in rows] == ["2.0", "2.1", "0.0", "0.1", "1.0", "1.1"]
    assert len({row["prompt_id"] for row in rows}) == 3


def taught(**changes) -> list[list[dict]]:
    line = {"id": "d", "rec_success": True, "generated_dialog": turns("a", "b", "c", "d", "e", "f", RIGHT)}
    line["base_turn"] = add_base_turn.base_turn(line)
    return [make_sft_data.taught_messages(line, settings(explore={}, **changes), 2, seed) for seed in range(20)]


def test_a_rollout_may_begin_with_the_teacher():
    assert {len(start) for start in taught()} == {0}
    assert all(start == turns("a", "b", "c", "d") for start in taught(tgi=True))  # 4 interactions, 2 remain
    assert {len(start) for start in taught(new_tgi=True)} == {0, 2, 4}


def test_a_prompt_that_the_teacher_began_is_consistent():
    start = turns("What decade?", "The sixties.")
    line = {"id": prompt()["id"], "base_turn": 3, "generated_dialog": [*start, *turns("a", "b", RIGHT)]}
    pool = {line["id"]: prompt(instruction="Be brief.") | {"id": line["id"]}}
    values = settings(explore={}, tgi=True)
    (longer,) = make_sft_data.train_prompts([line], pool, values, 2, 0)

    assert longer["dialog"] == [*pool[line["id"]]["dialog"], *start]
    assert longer["messages"] == instructed(longer["dialog"], "Be brief.")
    assert longer["question"].splitlines() == [
        "Seeker: A western, please.",
        "Recommender: What decade?",
        "Seeker: The sixties.",
    ]
    assert longer["reference"] == ["Harbor"]


# ---------------------------------------------------------------- prompts


def section(**splits) -> dict:
    return PromptsSection.model_validate(splits).model_dump(mode="json")


def test_beginnings_are_disjoint_and_seeded():
    values = section(pool={"count": {"genre": 200}}, eval={"count": {"genre": 100}})
    task = Prompts({}, {})
    pool, held_out = (list(task.read(values[name], name, 0)) for name in ("pool", "eval"))
    assert pool == list(task.read(values["pool"], "pool", 0))
    assert len({task.key(made_up) for made_up in pool + held_out}) == 300
    assert {made_up["reference"][0] for made_up in pool} <= {film["title"] for film in invented.items()}
    with pytest.raises(BadInput, match=r"prompts\.eval\.count\.genre: 601 dialogues .*600"):
        list(invented.dialogues("genre", "eval", 601, 0))


def test_equal_beginnings_with_other_targets_are_other_prompts():
    first, second = prompt(["Harbor"]), prompt(["Silver Harbor"])
    task = Prompts({}, {})
    assert first["question"] == second["question"] == "Seeker: A western, please."
    assert first["id"] != second["id"] and task.key(first) != task.key(second)
    assert task.key(first) == canonical(first["dialog"], ["Harbor"])
    beginning = {"dialog": first["dialog"], "target_items": ["Harbor"]}
    assert first["id"] == digest(beginning)
    assert prompt(instruction="Be brief.")["id"] == digest(beginning | {"instruction": "Be brief."})


def test_the_instruction_stands_before_the_first_words():
    dialog = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
    conversation = load_part("recommend", "Conversation")
    made = Prompts({"instruction": "Be brief.", "history": 2}, {}).prompt(dialog, ["X"], "l")
    assert conversation.requests(made, "auto")["auto"] == [{"role": "user", "content": "Be brief."}, *dialog[1:]]
    assert made["dialog"] == dialog[1:]
    assert instructed(dialog, "Be brief.")[0]["content"] == "Be brief.\n\nuser"
    with pytest.raises(BadInput, match=r"set generate.trigger to null"):
        conversation.requests(made, "trigger")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"reference": []}, "no answer"),
        ({"dialog": []}, "no dialog"),
        ({"messages": [{"role": "user"}]}, "no messages"),
        ({"dialog": [{"role": "user", "content": "A film, please."}]}, "the question occurs before"),
    ],
)
def test_prompts_edited_by_hand_are_validated(tmp_path, change, reason):
    texts = ("A western, please.", "A comedy, please.", "A film, please.")
    prompts = [prompt(text=text) for text in texts]
    write_parquet(tmp_path / "train.parquet", prompts)
    prompts = list(read_records(tmp_path / "train.parquet"))
    task = Prompts({}, {})
    check_edited(task, "train.parquet", "train", "nowhere.parquet", prompts)

    faulty = prompts[::-1]
    faulty[2] = faulty[2] | change
    with pytest.raises(BadInput, match=rf"train.parquet, row 2 .*{reason}"):
        check_edited(task, "train.parquet", "train", "nowhere.parquet", faulty)


# ---------------------------------------------------------------- what results depend on

CONFIG = {
    "name": "mine",
    "expname": "tag",
    "task": "recommend",
    "prompts": {"pool": {"count": {"genre": 8}}, "eval": {"count": {"genre": 4}}},
    "recommend": {"explore": {"end": 8, "rerank": False}, "bonus": 0.5, "hardcore": True},
    "model": {"path": "model"},
    "cold_start": {},
    "generate": {"trigger": None},
}
ENDPOINT = {"base_url": "http://a", "model": "m", "budget": 1.0, "prices": {"input": 1, "cached": 1, "output": 1}}


def wing(**changes) -> Wing:
    cfg = load(CONFIG | {"recommend": CONFIG["recommend"] | changes})
    return Wing(cfg, Run(cfg))


def test_each_stage_depends_on_its_own_keys():
    plain = wing()
    assert plain.settings("generate") == {"hardcore": True} and plain.settings("generate_eval") == {}
    assert plain.settings("grade") == {"bonus": 0.5} and plain.settings("construct_meta") == {}
    assert plain.settings("explore") == {"explore": {"end": 8}} and plain.settings("make_sft_data") == {"explore": {}}
    assert plain.files("grade") == {"catalogue": "runs/mine/catalogue/items.pkl"} == plain.files("generate_eval")


def test_how_endpoints_are_called_changes_no_result():
    player = {"engine": "openai", "openai": ENDPOINT}
    remote = wing(seeker=player, explore={"teacher": player})
    identity = {"base_url": "http://a", "model": "m"}
    assert remote.settings("generate")["seeker"] == {"engine": "openai", "openai": identity}
    assert remote.settings("explore")["explore"] == {"teacher": {"engine": "openai", "openai": identity}}
    assert "seeker" not in remote.settings("grade")
    assert remote.endpoints("generate")["seeker"]["openai"]["budget"] == 1.0
    assert set(remote.endpoints("explore")) == {"seeker", "explore"} and wing().endpoints("explore") == {}
    assert remote.calls_endpoint("generate") and not wing().calls_endpoint("explore")
    assert "budget" not in json.dumps(settings_of(remote.section))


def test_the_cold_start_learns_the_teachers_dialogues_unless_it_has_a_source():
    assert load(CONFIG).cold_start.file == "runs/mine/explore/tag_sft.jsonl" == wing().explored("_sft")
    own = load(CONFIG | {"cold_start": {"file": "mine.jsonl"}})
    assert own.cold_start.file == "mine.jsonl"
    assert load({key: value for key, value in CONFIG.items() if key != "cold_start"}).cold_start is None


IDENTITIES = """
import sys
from workflow_scripts.core.running.code import code_identity
for roots in sys.argv[1:]:
    print(code_identity(*roots.split("+")))
"""


def identities(copy: Copy) -> dict[str, str]:
    """Return the code digests of some stages in a copy of the workflow."""
    wing = "workflow_scripts.tasks.recommend"
    roots = {
        "generate": f"workflow_scripts.generate:main+{wing}.conversation:Conversation",
        "explore": f"{wing}.explore:main",
        "rerank": f"{wing}.rerank:main",
        "make_sft_data": f"{wing}.make_sft_data:main",
        "freeze_prompts": f"workflow_scripts.freeze_prompts:freeze+{wing}.prompts:Prompts",
        "grade": f"workflow_scripts.grade:main+{wing}.grading:Grading",
        "construct_data": f"workflow_scripts.construct_data:main+{wing}.selection:Selection",
        "evaluate": f"workflow_scripts.evaluate:main+{wing}.evaluation:Evaluation",
    }
    command = [sys.executable, "-c", IDENTITIES, *roots.values()]
    output = subprocess.run(command, cwd=copy.folder, capture_output=True, text=True, check=True).stdout
    return dict(zip(roots, output.split()))


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("grading.py", 'and not answer.get("fault")', "", {"grade"}),
        ("players.py", "SEEKER = ", "# A comment.\nSEEKER = ", set()),
        ("players.py", "Something else, please.", "Another one, please.", {"generate", "explore"}),
        ("outcomes.py", "rank <= catalogue", "rank < catalogue", {"generate", "explore", "rerank", "grade"}),
        ("evaluation.py", "hit <= turn", "hit < turn", {"evaluate"}),
        ("settings.py", "resamples: NonNegativeInt = 2", "redraws: int = 1\n    resamples: NonNegativeInt = 2", set()),
    ],
)
def test_an_edit_counts_for_the_stages_that_use_it(tmp_path, file, old, new, stages):
    copy = Copy(tmp_path)
    before = identities(copy)
    copy.edit(f"workflow_scripts/tasks/recommend/{file}", old, new)
    after = identities(copy)
    assert {stage for stage in before if before[stage] != after[stage]} == stages


# ---------------------------------------------------------------- memory


def peak_of_exploring(folder, count: int) -> float:
    """Return the MiB that exploring so many dialogues takes."""
    values = {"grounding": {"top_k": 3}, "list_length": 3, "explore": {"end": count}}
    command = [sys.executable, "-m", "workflow_scripts.tasks.recommend.explore"]
    command += ["--prompts", folder / "pool.parquet", "--catalogue", folder / "items.pkl"]
    command += ["--settings", json.dumps(values), "--output", folder / f"{count}.jsonl"]
    process = subprocess.Popen(
        list(map(str, command)), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0 and len((folder / f"{count}.jsonl").read_text().splitlines()) == count
    return used.ru_maxrss / 1024


def test_memory_hardly_grows_with_the_dialogues(tmp_path):
    """2,000 dialogues are twice INSPIRED's; a transcript is a few kB."""
    splits = {"pool": {"count": {"genre": 2000}}, "eval": {"count": {"genre": 1}}}
    freeze(Prompts({}, {}), PromptsSection.model_validate(splits), 0, tmp_path)
    write_pickle(tmp_path / "items.pkl", {"items": invented.items(), "embedder": "tfidf", "vectors": None})
    assert peak_of_exploring(tmp_path, 2000) - peak_of_exploring(tmp_path, 100) < 40
