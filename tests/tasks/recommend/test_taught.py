"""Entering half-way: a teacher's dialogues that exist as files, in TART's formats. Nobody is asked for them again."""

import json
import sys

import pytest

from tests.engines.faulty_proxy import FaultyProxy
from tests.engines.test_openai import PRICES, model, server  # noqa: F401  (fixtures)
from tests.harness import Copy, jobs
from tests.tasks.recommend.test_workflow import CONFIG, frozen
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.records import read_records
from workflow_scripts.tasks.recommend import add_base_turn, import_dialogues, make_sft_data
from workflow_scripts.tasks.recommend.settings import Settings

TITLES = ["Silver Harbor (1968)", "Quiet Garden (1974)", "Crimson Letter (1981)", "Hidden Mirror (1995)"]
LIST = "Based on your interest in westerns, here are some recommendations: 1. Quiet Garden (1974) 2. {} 3. {}"


def said(*texts: str, first: str = "user") -> list[dict]:
    """Return messages by seeker and recommender alternately."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def continuation(questions: int, title: str) -> list[dict]:
    """Return a teacher's part of a dialogue: some questions, then a list with an item twice; the seeker accepts."""
    texts: list[str] = []
    for number in range(questions):
        texts += [f"Which mood do you like, number {number}?", f"Something calm, {number}."]
    texts += [LIST.format("Quiet Garden (1974)", title), "Great, I will watch that."]
    return said(*texts, first="assistant")


def explored_lines() -> list[dict]:
    """Return dialogues as explore_gpt.py logs them."""
    lines = []
    for number, (questions, title) in enumerate(((2, TITLES[0]), (0, TITLES[2]), (1, TITLES[3])), 1):
        is_right = number < 3
        lines.append(
            {
                "id": number,
                "given_dialog": said(f"Hello, number {number}.", "Hi!", "A western, please."),
                "generated_dialog": continuation(questions, title if is_right else TITLES[1]),
                "rec_success": is_right,
                "hit_ratio": "1.000" if is_right else "0.667",
                "rec_names": [title],
                "rec_ids": [number],
                "topk_names": [TITLES[1], title],
                "topk_ids": [9, number],
            }
        )
    return lines


def reranked_records() -> list[dict]:
    """Return dialogues as make_sft_data.py writes them."""
    names = {"given_dialog": "dialog", "generated_dialog": "interaction", "rec_names": "target_items"}
    return [{new: line[old] for old, new in names.items()} for line in explored_lines()[:2]]


def last2_records() -> list[dict]:
    """Return dialogues that begin with the teacher's first interactions, so that two are left."""
    records = []
    for record in reranked_records():
        turns = len(record["interaction"]) // 2
        begun = record["interaction"][: 2 * max(0, turns - 2)]
        left = record["interaction"][len(begun) :]
        records.append(record | {"dialog": record["dialog"] + begun, "interaction": left, "base_turn": turns})
    return records


def write(folder, form: str) -> str:
    """Write a file in TART's format and with its kind of name; return the name."""
    if form == "explored":
        name = "0906152045_inspired2_explore_gpt41_trainset.json"
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in explored_lines()))
        return name

    name = f"inspired2_processed_train_sft_gpt_success_{'rerank' if form == 'reranked' else 'last2interaction'}.json"
    records = reranked_records() if form == "reranked" else last2_records()
    (folder / name).write_text(json.dumps(records, indent=4))
    return name


def config(folder, form: str, **changes) -> dict:
    """Return the config of a run that enters with a file of this format."""
    eval_file = folder / "inspired2_processed_test.json"
    eval_file.write_text(json.dumps([{"dialog": said("A comedy?"), "target_items": [TITLES[1]]}]))
    section = {"explore": {form: write(folder, form)}, "list_length": 3, "grounding": {"top_k": 3}, "tgi": True}
    return CONFIG | {"prompts": {"eval": {"file": eval_file.name}}, "recommend": section | changes}


def play(folder, form: str, file: str, **explore) -> list[dict]:
    """Freeze a file as the pool, import it, and return the lines."""
    settings = {"explore": {form: file, **explore}}
    good, _ = frozen(folder, folder / file, split="pool", **settings)
    assert good
    options = {
        "prompts": folder / "prompts/pool.parquet",
        "settings": json.dumps(settings),
        "output": folder / "out.jsonl",
    }
    sys.argv = ["import_dialogues", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    import_dialogues.main()
    return list(read_records(folder / "out.jsonl"))


# ---------------------------------------------------------------- the formats


@pytest.mark.parametrize("form", ["explored", "reranked", "sft"])
def test_each_format_keeps_the_teachers_part(tmp_path, monkeypatch, form):
    monkeypatch.setattr(sys, "argv", [])
    lines = play(tmp_path, form, write(tmp_path, form))
    assert [line["rec_success"] for line in lines] == [True, True, False][: len(lines)]
    assert [line["target_items"] for line in lines[:2]] == [[TITLES[0]], [TITLES[2]]]
    assert all(line["generated_dialog"][-1]["role"] == "assistant" for line in lines)  # the last words are nobody's
    assert len({line["id"] for line in lines}) == len(lines)

    turns = [len(line["generated_dialog"]) // 2 + 1 for line in lines[:2]]
    assert turns == ([2, 1] if form == "sft" else [3, 1])
    assert [line.get("base_turn") for line in lines[:2]] == ([3, 1] if form == "sft" else [None, None])
    assert len(lines[0]["given_dialog"]) == (5 if form == "sft" else 3)


def test_a_part_of_the_dialogues(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [])
    file = write(tmp_path, "explored")
    assert len(play(tmp_path, "explored", file, start=1, end=2)) == 1
    with pytest.raises(BadInput, match=r"recommend\.explore\.start 3 leaves no dialogue"):
        play(tmp_path, "explored", file, start=3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"generated_dialog": "Hi"}, "interaction should be messages by user and assistant with content, found 'Hi'"),
        ({"generated_dialog": []}, "interaction should be messages"),
        ({"generated_dialog": said("Hello.")}, "interaction, message 1: should be by 'assistant', found 'user'"),
        ({"generated_dialog": said(" ", first="assistant")}, "interaction, message 1: the recommender says nothing"),
        ({"given_dialog": [{"role": "system", "content": "x"}]}, "dialog should be messages by user and assistant"),
        ({"rec_names": "Alien"}, "target_items should be titles, found 'Alien'"),
        ({"rec_success": "yes"}, "rec_success should be true or false, found 'yes'"),
        ({"base_turn": -1}, "base_turn should be a number of interactions, found -1"),
        ({"generated_dialog": None}, "interaction should be messages"),
    ],
)
def test_a_dialogue_that_cannot_be_used_is_a_reject_with_its_reason(tmp_path, changes, reason):
    first, second, _ = explored_lines()
    (tmp_path / "x.json").write_text(json.dumps(first) + "\n" + json.dumps(second | changes) + "\n")
    good, rejects = frozen(tmp_path, tmp_path / "x.json", split="pool", explore={"explored": "x.json"})
    assert len(good) == 1 and len(rejects) == 1
    assert reason in rejects[0]["reason"]


@pytest.mark.parametrize(
    ("record", "form", "message"),
    [
        ({"dialog": [], "target_items": []}, "reranked", "has no 'interaction' or 'generated_dialog', only 'dialog'"),
        (reranked_records()[0], "explored", "'rec_success'; if all its dialogues are to be learnt, give it as"),
    ],
)
def test_a_file_in_another_format_is_refused(tmp_path, record, form, message):
    (tmp_path / "x.json").write_text(json.dumps([record]))
    with pytest.raises(BadInput, match=message):
        frozen(tmp_path, tmp_path / "x.json", split="pool", explore={form: "x.json"})


def test_a_file_takes_the_place_of_the_pool_and_of_the_teacher(tmp_path):
    values = config(tmp_path, "sft", seeker={"engine": "scripted"})
    file = values["recommend"]["explore"]["sft"]
    values["recommend"]["explore"]["teacher"] = {"engine": "scripted", "temperature": 0.5}
    for pool in ({}, {"pool": {"file": "another.json"}}):
        cfg = load(values | {"prompts": values["prompts"] | pool})
        assert cfg.prompts.pool.file == file
        assert cfg.cold_start.file == "runs/mine/explore/mine_sft.jsonl"


def test_two_files_are_refused(tmp_path):
    values = config(tmp_path, "sft")
    with pytest.raises(ConfigError, match="explored and sft: each is a file of all dialogues; give one of them"):
        load(values | {"recommend": {"explore": {"explored": "a.json", "sft": "b.json"}}})


# ---------------------------------------------------------------- the workflow

BEFORE = {"explored": {"explore"}, "reranked": {"explore", "rerank"}, "sft": {"explore", "rerank", "add_base_turn"}}
STEPS = {"explore", "rerank", "add_base_turn", "make_sft_data"}


@pytest.mark.long
def test_the_stages_before_the_entry_do_not_run_and_no_endpoint_is_asked(server, model, tmp_path):  # noqa: F811
    proxy = FaultyProxy(server)
    endpoint = {"base_url": proxy.url, "model": model, "key_env": None, "prices": PRICES, "budget": 1.0}
    seeker = {"engine": "openai", "openai": endpoint}
    copy = Copy(tmp_path)

    for form, left_out in BEFORE.items():
        copy.configure(config(tmp_path, form, seeker=seeker) | {"name": form})
        planned = jobs(copy.snakemake("-n", "round1_checkpoint"))
        assert planned & STEPS == STEPS - left_out
        assert planned >= {"import_dialogues", "cold_start", "generate"}

    copy.configure(config(tmp_path, "explored", seeker=seeker) | {"name": "explored"})
    copy.snakemake("runs/explored/explore/explored_sft.jsonl")
    assert sum(proxy.asked.values()) == 0 and not (tmp_path / "runs/explored/ledger").exists()

    rows = list(read_records(tmp_path / "runs/explored/explore/explored_sft.jsonl"))
    assert len(rows) == 2  # the third dialogue failed
    taught_list = rows[0]["response"][-1]["content"]
    assert taught_list.split("recommendations: ")[1].startswith(f"1. {TITLES[0]}")  # reranked: the hit is first

    prompts = list(read_records(tmp_path / "runs/explored/prompts/train.parquet"))
    assert [len(prompt["dialog"]) for prompt in prompts] == [3 + 2, 3, 3]  # tgi: two interactions are left
    assert not {"interaction", "base_turn", "rec_success"} & set(prompts[0])


@pytest.mark.parametrize("way", ["tgi", "new_tgi"])
def test_a_file_that_begins_with_the_teacher_is_not_cut_again(tmp_path, monkeypatch, way):
    monkeypatch.setattr(sys, "argv", [])
    dialogues = {}

    for form in ("reranked", "sft"):
        folder = tmp_path / form
        folder.mkdir()
        lines = play(folder, form, write(folder, form))
        lines = [line | {"base_turn": add_base_turn.base_turn(line)} for line in lines]
        pool = {prompt["id"]: prompt for prompt in read_records(folder / "prompts/pool.parquet")}
        settings = Settings.model_validate({"explore": {form: "x"}, way: True})
        prompts = make_sft_data.train_prompts(lines, pool, settings, 2, 0)
        dialogues[form] = [len(prompt["dialog"]) for prompt in prompts]

    assert dialogues["sft"] == [5, 3]  # …_last2interaction.json is what tgi makes of …_rerank.json
    assert dialogues["reranked"] == [5, 3] or (way == "new_tgi" and dialogues["reranked"] == [3, 3])
