"""Recommendation dialogues as they come: published formats, teachers and seekers behind an endpoint, whole rounds."""

import json
import shutil
import sys
from contextlib import closing

import pandas as pd
import pytest

from tests.engines.faulty_proxy import FaultyProxy, says
from tests.engines.test_openai import PRICES, model, server  # noqa: F401  (fixtures)
from tests.harness import NOTHING_TO_DO, Copy, jobs
from workflow_scripts import freeze_prompts
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.config.sections import Prompts as PromptsSection
from workflow_scripts.config.sections import Split
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_parquet
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.tasks.recommend import explore, invented, players
from workflow_scripts.tasks.recommend.catalogue import mentioned_items
from workflow_scripts.tasks.recommend.evaluation import Evaluation
from workflow_scripts.tasks.recommend.prompts import Prompts
from workflow_scripts.tasks.recommend.settings import Player

CONFIG = {
    "name": "mine",
    "task": "recommend",
    "rounds": 1,
    "shards": 1,
    "prompts": {"pool": {"count": {"genre": 24}}, "eval": {"count": {"genre": 4, "genre_and_decade": 2}}},
    "recommend": {
        "explore": {"end": 20},
        "grounding": {"top_k": 2},
        "list_length": 2,
        "tgi": True,
        "rerank": True,
        "reward": 1.0,
        "resamples": 1,
        "rec_format_check": True,
        "start": 2,
        "end": 10,
    },
    "model": {"scratch": {"layers": 1, "width": 32, "heads": 2, "mlp_width": 64, "vocabulary": 400}},
    "cold_start": {"train": {"lr": 0.003, "batch_size": 8, "threads": 1}},
    "generate": {
        "pool": {"turns": 4, "max_tokens": 500},
        "auto": {"samples": 2, "max_tokens": 40, "turns": 2},
        "trigger": None,
        "eval": {"samples": 1, "temperature": 0, "max_tokens": 40, "turns": 2},
    },
    "data": {"tag": "grpo", "advantage": "raw"},
    "train": {"objective": "clip", "kl": 0.1, "clip_high": 0.28, "batch_size": 8, "threads": 1},
}
AFTER_GRADING = {"grade", "construct_meta", "construct_data", "logp", "train", "generate_eval", "evaluate"}
BEFORE_GRADING = {"freeze_prompts", "catalogue", "explore", "rerank", "make_sft_data", "cold_start", "generate"}


# ---------------------------------------------------------------- the workflow


@pytest.mark.long
def test_an_edited_catalogue_freezes_the_prompts_anew_but_never_over_edits(tmp_path):
    changes = {
        "prompts": {"train": {"file": "mine.jsonl"}, "eval": {"file": "eval.jsonl"}},
        "recommend": {"catalogue": "items.csv"},
        "model": {"path": "model"},
        "cold_start": None,
    }
    copy = Copy(tmp_path, CONFIG | changes)
    dialog = [{"role": "user", "content": "A western?"}]
    rows = [{"dialog": dialog, "target_items": [title]} for title in ("Silver Harbor", "Nowhere")]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = {"dialog": [{"role": "user", "content": "A film?"}], "target_items": ["Silver Harbor"]}
    (tmp_path / "eval.jsonl").write_text(json.dumps(other) + "\n")
    assert "recommend.catalogue: there is no file items.csv" in copy.snakemake("-n", fails=True)

    frozen = tmp_path / "runs/mine/prompts/train.parquet"
    for titles, count in ((["Silver Harbor"], 1), (["Silver Harbor", "Nowhere"], 2)):
        (tmp_path / "items.csv").write_text("\n".join(["title", *titles]) + "\n")
        copy.snakemake("-n")
        assert len(list(read_records(frozen))) == count

    write_parquet(frozen, list(read_records(frozen))[:1])
    (tmp_path / "items.csv").write_text("title\nSilver Harbor\n")
    output = copy.snakemake("-n", fails=True)
    assert "was edited by hand, and what it was made from changed too (mine.jsonl" in output
    assert len(list(read_records(frozen))) == 1


@pytest.mark.slow
def test_a_round_from_the_teacher_to_the_metrics(tmp_path):
    copy = Copy(tmp_path, CONFIG)
    output = copy.snakemake("round1_checkpoint")
    assert "success / interactions" in output
    run = tmp_path / "runs/mine"

    explored = list(read_records(run / "explore/mine.jsonl"))
    assert len(explored) == 20 and 0 < sum(line["rec_success"] for line in explored) < 20
    good = {line["id"]: line for line in explored if line["rec_success"]}
    assert all(set(line["rec_names"]) & set(line["topk_names"][:2]) for line in good.values())

    learnt = list(read_records(run / "explore/mine_sft.jsonl"))
    assert {row["id"] for row in learnt} == set(good)  # only successful ones
    for row in read_pickle(run / "data/sft_mine.pkl"):
        text = trained_text(row, run)
        assert "No, not these" not in text and "You may like" in text

    prompts = {prompt["id"]: prompt for prompt in read_records(run / "prompts/train.parquet")}
    base_turns = {line["id"]: line["base_turn"] for line in read_records(run / "explore/mine_base_turn.jsonl")}
    lengths = {name: len(prompt["dialog"]) for name, prompt in prompts.items()}
    assert list(prompts) == [line["id"] for line in explored[2:10]]
    assert lengths == {name: 1 + 2 * max(0, base_turns[name] - 2) for name in prompts} and max(lengths.values()) > 1
    assert all(prompt["messages"] == prompt["dialog"] for prompt in prompts.values())  # there is no instruction

    answers = list(read_pickle(run / "results/r1/auto/1_0_matchlog.pkl"))
    assert len(answers) == 16 and all(len(answer["tokens"]) == len(answer["mask"]) for answer in answers)
    redraws = read_json(run / "results/r1/auto/1_0.json")["redraws"]
    assert redraws["wrong"] == sum("fault" in answer for answer in answers)
    assert all(answer["reward"] == -1 for answer in answers if "fault" in answer)

    metrics = read_json(run / "evaluation/r1.json")
    assert set(metrics) >= {*Evaluation.metrics, "success_by_turn"} and metrics["n"] == 6
    assert NOTHING_TO_DO in copy.snakemake("-n", "round1_checkpoint")
    copy.snakemake("verify")

    other = tmp_path / "runs/other/evaluation"
    shutil.copytree(run / "evaluation", other)
    plot = tmp_path / "beside.svg"
    copy.run("workflow_scripts.report", "--task", "recommend", "--run", "runs/mine", "runs/other", "--plot", str(plot))
    assert all(f"<!-- {name} -->" in plot.read_text() for name in ("runs/mine", "runs/other"))

    copy.configure(CONFIG | {"recommend": CONFIG["recommend"] | {"new_tgi": True, "tgi": False}})
    planned = jobs(copy.snakemake("-n", "round1_checkpoint"))
    assert "make_sft_data" in planned and not {"explore", "rerank"} & planned

    copy.configure(CONFIG)
    copy.edit("workflow_scripts/tasks/recommend/grading.py", 'and not answer.get("fault")', "")
    planned = jobs(copy.snakemake("-n", "round1_checkpoint"))
    assert planned >= AFTER_GRADING and not planned & BEFORE_GRADING


def trained_text(row: dict, run) -> str:
    """Return what a row trains on."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run / "checkpoints/init/model")
    return tokenizer.decode([token for token, own in zip(row["tokens"], row["mask"]) if own])


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"recommend": {"hardcor": True}}, "recommend.hardcor: there is no such key; did you mean 'hardcore'?"),
        ({"recommend": {}}, "cold_start: give either `file` or `count`; neither is given"),
        ({"recommend": {}, "cold_start": {"file": "x.jsonl"}}, "only a teacher uses it; give `recommend.explore`"),
        (
            {"prompts": {"train": {"file": "x.jsonl"}, "eval": {"file": "y.jsonl"}}},
            "the teacher of `recommend.explore`",
        ),
        ({"recommend": {"explore": {"start": 3, "end": 3}}}, "start 3 and end 3 leave no dialogue"),
        ({"recommend": {"explore": {}, "start": 5, "end": 4}}, "start 5 and end 4 leave no dialogue"),
        ({"recommend": {"explore": {}, "tgi": True, "new_tgi": True}}, "choose one"),
        ({"recommend": {"tgi": True}}, "they need `explore`"),
        ({"recommend": {"seeker": {"engine": "openai"}, "explore": {}}}, "the section `openai`"),
        ({"recommend": {"off_formatcheck": True, "rec_format_check": True, "explore": {}}}, "off_formatcheck turns"),
        ({"generate": {}}, "set generate.trigger to null"),
        ({"generate": {"auto": {"engine": "openai"}, "trigger": None}}, "the policy itself answers in dialogues"),
        ({"cold_start": {"count": {"genre": 3}}}, "makes up dialogues, not worked answers"),
        ({"cold_start": {"count": {"genre": 3}, "file": "x.jsonl"}}, "both are given"),
        ({"reward": "blue"}, "there is no such reward"),
        ({"results": {1: {"auto": ["x.pkl"]}}}, "cannot read answers from files"),
    ],
)
def test_faults_of_the_config(changes, hint):
    with pytest.raises(ConfigError) as error:
        load(CONFIG | changes)
    assert hint in str(error.value)


# ---------------------------------------------------------------- endpoints


def arguments(folder, url, model, budget=1.0) -> list[str]:  # noqa: F811
    """Return the command line of a teacher and a seeker behind one endpoint."""
    player = {"engine": "openai", "openai": {"base_url": url, "model": model}, "max_tokens": 12}
    limits = {"openai": {"key_env": None, "prices": PRICES, "budget": budget, "timeout": 20.0}}
    settings = {"explore": {"teacher": player, "end": 5}, "seeker": player, "grounding": {"top_k": 2}, "list_length": 2}
    values = {
        "prompts": folder / "pool.parquet",
        "catalogue": folder / "items.pkl",
        "settings": json.dumps(settings),
        "endpoints": json.dumps({"task": {"seeker": limits, "explore": {"teacher": limits}}}),
        "requests": folder / "ledger",
        "turns": 3,
        "max-tokens": 24,
        "output": folder / "out.jsonl",
    }
    return ["explore", *(part for name, value in values.items() for part in (f"--{name}", str(value)))]


def test_teacher_and_seeker_behind_a_real_server(server, model, tmp_path, monkeypatch):  # noqa: F811
    source = Split(count={"genre": 8}).model_dump()
    write_parquet(tmp_path / "pool.parquet", Prompts({}, {}).read(source, "pool", 0))
    write_pickle(tmp_path / "items.pkl", {"items": invented.items(), "embedder": "tfidf", "vectors": None})
    proxy = FaultyProxy(server, share=0.2, kinds=("500", "reset"))

    monkeypatch.setattr(sys, "argv", arguments(tmp_path, proxy.url, model, budget=1e-6))
    with pytest.raises(BadInput, match="the budget is reached"):
        explore.main()

    monkeypatch.setattr(sys, "argv", arguments(tmp_path, proxy.url, model))
    explore.main()
    lines = list(read_records(tmp_path / "out.jsonl"))
    rejects = list(read_records(tmp_path / "out.rejects.jsonl"))
    assert len(lines) + len(rejects) == 5 and all(reject["reason"] for reject in rejects)
    assert any(len(line["generated_dialog"]) > 1 for line in lines + rejects)  # the seeker answered too
    manifest = read_json(tmp_path / "out.json")
    assert manifest["rejects"] == len(rejects) and "key_env" not in json.dumps(manifest["settings"])
    assert (tmp_path / "ledger/seeker_requests").is_dir() and (tmp_path / "ledger/teacher_requests").is_dir()

    requests = sum(proxy.asked.values())
    before = (tmp_path / "out.jsonl").read_bytes()
    explore.main()
    assert sum(proxy.asked.values()) == requests and (tmp_path / "out.jsonl").read_bytes() == before  # paid for once


@pytest.mark.parametrize(
    ("text", "reason"), [("Seeker: No, thanks.", None), ("I want Silver  Harbor!", "gave a target's title away")]
)
def test_a_seeker_must_not_name_what_it_wants(tmp_path, text, reason):
    with says(text) as url:
        player = Player(engine="openai", openai={"base_url": url, "model": "m", "key_env": None})
        with closing(players.ModelSeeker(player, Ledger(tmp_path, "1_0"), "seeker")) as seeker:
            replies = seeker.answer([(["Silver Harbor"], [{"role": "assistant", "content": "What do you like?"}])])
    assert replies[0].rejected == reason and not replies[0].text.startswith("Seeker:")


# ---------------------------------------------------------------- published formats


def frozen(tmp_path, file, catalogue=None, split="eval", **settings):
    """Return the prompts that a file gives, and the rejects."""
    splits = {"eval": {"count": {"genre": 1}}, split: {"file": str(file)}}
    section = PromptsSection.model_validate(splits)
    task = Prompts(settings, {"catalogue": str(catalogue)} if catalogue else {})
    freeze_prompts.freeze(task, section, 0, tmp_path / "prompts")
    good = list(read_records(tmp_path / f"prompts/{split}.parquet"))
    return good, list(read_records(tmp_path / "prompts/rejects.jsonl"))


INSPIRED = ["dialog_id", "speaker", "text", "movies", "movie_dict", "fine_label", "utt_id"]


def inspired(tmp_path, *dialogues):
    """Write a .tsv of dialogues, each a list of (speaker, text, movies) with a label and a movie_dict."""
    lines = []
    for name, (rows, label, movies) in enumerate(dialogues):
        for number, (speaker, text, named) in enumerate(rows):
            lines.append(dict(zip(INSPIRED, (f"d{name}", speaker, text, named, movies, label, number))))
    pd.DataFrame(lines, columns=INSPIRED).to_csv(tmp_path / "dev.tsv", sep="\t", index=False)
    return tmp_path / "dev.tsv"


SEEKS = [("RECOMMENDER", "Hi!", ""), ("SEEKER", "Hello.", ""), ("SEEKER", "A war film?", "Alien (1979)")]
NAMES = ("RECOMMENDER", "See Full Metal Jacket.", "Full Metal  Jacket (1987)")
MOVIES = "{'Full Metal Jacket (1987)': 0, 'Joker (2019)': 1}"


def test_inspired_gives_what_was_said_before_the_target(tmp_path):
    file = inspired(
        tmp_path,
        ([*SEEKS, NAMES, ("SEEKER", "Fine.", "")], "accept_others", MOVIES),
        ([*SEEKS, NAMES], "reject", MOVIES),
        ([NAMES, ("SEEKER", "Fine.", "")], "accept_others", MOVIES),
        (SEEKS, "accept_others", MOVIES),
        ([*SEEKS, NAMES], "accept_others", "{'Murder Mystery (2019)': 0"),
        ([("MODERATOR", "Stop.", "")], "accept_others", MOVIES),
    )
    good, rejects = frozen(tmp_path, file)
    assert [prompt["id"] for prompt in good] == ["d0"]
    dialog = [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Hello. A war film?"}]
    assert good[0]["dialog"] == dialog
    assert good[0]["messages"] == [{"role": "user", "content": "Hello."}, *dialog]  # templates begin with the user
    assert good[0]["question"] == "Recommender: Hi!\nSeeker: Hello. A war film?"
    assert good[0]["reference"] == ["Full Metal Jacket (1987)"]

    titles = [item["title"] for item in mentioned_items(good)]
    assert titles == ["Alien (1979)", "Full Metal Jacket (1987)", "Joker (2019)"]
    assert [reject["reason"] for reject in rejects] == [
        "the seeker rejected what was recommended",
        "the seeker says nothing before a target is named",
        "no target item",
        "movie_dict should be a dict, found \"{'Murder Mystery (2019)': 0\"",
        "utterance 0: speaker should be SEEKER or RECOMMENDER, found 'MODERATOR'",
    ]


def redial(number, **changes) -> dict:
    """Return a record of ReDial."""
    messages = [(1, "Hi, I liked @11"), (2, "Then see @22 or @33"), (1, "Good")]
    return {
        "conversationId": str(number),
        "initiatorWorkerId": 1,
        "respondentWorkerId": 2,
        "movieMentions": {"11": "Alien (1979)", "22": "Joker  (2019)", "33": "Us (2019)"},
        "initiatorQuestions": {"22": {"liked": 1}, "33": {"liked": 0}, "11": {"liked": 1}},
        "respondentQuestions": {"22": {"suggested": 1}, "33": {"suggested": 1}, "11": {"suggested": 0}},
        "messages": [{"senderWorkerId": who, "text": text} for who, text in messages],
    } | changes


def test_redial_gives_liked_suggestions(tmp_path):
    lost = [{"senderWorkerId": 7, "text": "I am lost"}]
    late = [*redial(4)["messages"], *lost]  # after the target is named, nobody looks
    lines = [
        redial(0),
        redial(1, movieMentions=[]),
        redial(2, messages="none"),
        redial(3, messages=lost),
        redial(4, messages=[{"senderWorkerId": 1, "text": "Hello"}, *late]),
        redial(5, initiatorQuestions={"22": 1}),
    ]
    file = tmp_path / "test_data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    good, rejects = frozen(tmp_path, file)
    assert [(prompt["id"], prompt["reference"]) for prompt in good] == [
        ("0", ["Joker (2019)"]),
        ("4", ["Joker (2019)"]),
    ]
    assert good[0]["dialog"] == [{"role": "user", "content": "Hi, I liked Alien (1979)"}]
    assert [reject["reason"] for reject in rejects] == [
        "no target item",
        "movieMentions should be an object and messages a list",
        "message 1: no text, or by neither of both speakers",
        "the questions should be an object of objects by film",
    ]


def test_dialogues_of_ones_own_with_a_catalogue(tmp_path):
    file = tmp_path / "mine.jsonl"
    catalogue = tmp_path / "items.csv"
    dialog = [{"role": "user", "content": "A western?"}]
    rows = [{"dialog": dialog, "target_items": [title]} for title in ("Silver Harbor", "Nowhere")]
    rows += [{"dialog": "A western?", "target_items": ["Silver Harbor"]}, {"dialog": dialog, "target_items": None}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    catalogue.write_text("title,genre\nSilver Harbor,western\n")

    good, rejects = frozen(tmp_path, file, catalogue, instruction="Be brief.")
    assert [prompt["messages"][0]["content"] for prompt in good] == ["Be brief.\n\nA western?"]
    assert [reject["reason"] for reject in rejects] == [
        "the target 'Nowhere' is not in the catalogue",
        "dialog should be messages by user and assistant with content",
        "target_items should be titles, found None",
    ]

    file.write_text('{"text": "A western?"}\n')
    with pytest.raises(BadInput, match=r"mine.jsonl, record 1: has no 'dialog', only 'text'; dialogues are INSPIRED's"):
        frozen(tmp_path, file)
