"""Recommendation dialogues as they come: published formats, teachers and seekers behind an endpoint, whole rounds."""

import json
import shutil
import sys
from contextlib import closing

import pandas as pd
import pytest
from conftest import Copy
from faulty_proxy import FaultyProxy, says
from test_openai import PRICES, model, server  # noqa: F401  fixtures

from workflow_scripts import explore, freeze_prompts
from workflow_scripts.core.config import ConfigError, load
from workflow_scripts.core.dialogue_sections import Recommend
from workflow_scripts.core.ledger import Ledger
from workflow_scripts.core.records import BadInput, read_json, read_pickle, read_records, write_parquet, write_pickle
from workflow_scripts.core.sections import Prompts
from workflow_scripts.dialogues import invented, players, readers
from workflow_scripts.tasks import recommend

CONFIG = {
    "name": "mine", "task": "recommend", "rounds": 1, "shards": 1,
    "prompts": {"pool": {"count": {"genre": 24}}, "eval": {"count": {"genre": 4, "genre_and_decade": 2}}},
    "recommend": {
        "explore": {"end": 20}, "grounding": {"top_k": 2}, "list_length": 2, "tgi": True, "rerank": True, "reward": 1.0,
        "resamples": 1, "rec_format_check": True, "start": 2, "end": 10,
    },
    "model": {"scratch": {"layers": 1, "width": 32, "heads": 2, "mlp_width": 64, "vocabulary": 400}},
    "cold_start": {"explored": True, "train": {"lr": 0.003, "batch_size": 8, "threads": 1}},
    "generate": {
        "pool": {"turns": 4, "max_tokens": 500}, "auto": {"samples": 2, "max_tokens": 40, "turns": 2}, "trigger": None,
        "eval": {"samples": 1, "temperature": 0, "max_tokens": 40, "turns": 2},
    },
    "data": {"tag": "grpo", "advantage": "raw"},
    "train": {"objective": "clip", "kl": 0.1, "clip_high": 0.28, "batch_size": 8, "threads": 1},
}  # fmt: skip


# ---------------------------------------------------------------- the workflow


def test_an_edited_catalogue_freezes_the_prompts_anew_but_never_over_edits(tmp_path):
    prompts = {"train": {"file": "mine.jsonl"}, "eval": {"file": "eval.jsonl"}, "catalogue": "items.csv"}
    changes = {"prompts": prompts, "recommend": {}, "model": {"path": "model"}, "cold_start": None}
    copy = Copy(tmp_path, CONFIG | changes)
    dialog = [{"role": "user", "content": "A western?"}]
    rows = [{"dialog": dialog, "target_items": [title]} for title in ("Silver Harbor", "Nowhere")]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = {"dialog": [{"role": "user", "content": "A film?"}], "target_items": ["Silver Harbor"]}
    (tmp_path / "eval.jsonl").write_text(json.dumps(other) + "\n")
    assert "there is no file items.csv" in copy.snakemake("-n", fails=True)
    for titles, count in ((["Silver Harbor"], 1), (["Silver Harbor", "Nowhere"], 2)):
        (tmp_path / "items.csv").write_text("\n".join(["title", *titles]) + "\n")
        copy.snakemake("-n")
        frozen = tmp_path / "runs/mine/prompts/train.parquet"
        assert len(list(read_records(frozen))) == count
    write_parquet(frozen, list(read_records(frozen))[:1])
    (tmp_path / "items.csv").write_text("title\nSilver Harbor\n")
    assert "was edited by hand, and what it is made of changed too (mine.jsonl" in copy.snakemake("-n", fails=True)
    assert len(list(read_records(frozen))) == 1


@pytest.mark.slow
def test_a_round_from_the_teacher_to_the_figures(tmp_path):
    copy = Copy(tmp_path, CONFIG)
    output = copy.snakemake("round1_checkpoint")
    assert "success / interactions" in output
    run = tmp_path / "runs/mine"
    explored = list(read_records(run / "explore/mine.jsonl"))
    assert len(explored) == 20 and 0 < sum(line["rec_success"] for line in explored) < 20
    good = {line["id"]: line for line in explored if line["rec_success"]}
    assert all(set(line["rec_names"]) & set(line["topk_names"][:2]) for line in good.values())

    learnt = list(read_records(run / "explore/mine_sft.jsonl"))
    assert {row["id"] for row in learnt} == set(good)  # successful ones alone
    rows = read_pickle(run / "data/sft_mine.pkl")
    assert all("No, not these" not in _own(row, run) and "You may like" in _own(row, run) for row in rows)

    prompts = pd.read_parquet(run / "prompts/train.parquet")
    turns = {line["id"]: line["base_turn"] for line in read_records(run / "explore/mine_base_turn.jsonl")}
    given = {record["id"]: len(json.loads(record["question"])["dialog"]) for record in prompts.to_dict("records")}
    assert list(given) == [line["id"] for line in explored[2:10]]
    assert given == {name: 1 + 2 * max(0, turns[name] - 2) for name in given} and max(given.values()) > 1

    answers = list(read_pickle(run / "results/r1/auto/1_0_matchlog.pkl"))
    assert len(answers) == 16 and all(len(one["tokens"]) == len(one["mask"]) for one in answers)
    form = read_json(run / "results/r1/auto/1_0.json")["form"]
    assert form["wrong"] == sum(bool(one["fault"]) for one in answers)
    assert all(one["reward"] == -1 for one in answers if one["fault"])
    figures = read_json(run / "evaluation/r1.json")
    assert set(figures) >= {*recommend.FIGURES, "success_by_turn"} and figures["n"] == 6
    assert "Nothing to be done" in copy.snakemake("-n", "round1_checkpoint")
    copy.snakemake("verify")

    other = tmp_path / "runs/other/evaluation"
    shutil.copytree(run / "evaluation", other)
    plot = tmp_path / "beside.svg"
    copy.run("workflow_scripts.report", "--task", "recommend", "--run", "runs/mine", "runs/other", "--plot", str(plot))
    assert all(f"<!-- {name} -->" in plot.read_text() for name in ("runs/mine", "runs/other"))

    changed = CONFIG | {"recommend": CONFIG["recommend"] | {"new_tgi": True, "tgi": False}}
    copy.configure(changed)
    planned = copy.snakemake("-n", "round1_checkpoint")
    assert "make_sft_data" in planned and "rule explore:" not in planned and "rule rerank:" not in planned


def _own(row: dict, run) -> str:
    """What a row trains on."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run / "checkpoints/init/model")
    return tokenizer.decode([token for token, own in zip(row["tokens"], row["mask"]) if own])


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"recommend": None}, "the task recommend and the section `recommend` belong together"),
        ({"recommend": {"hardcor": True}}, "recommend.hardcor: there is no such key; did you mean 'hardcore'?"),
        ({"recommend": {}}, "cold_start.explored needs `recommend.explore`"),
        ({"recommend": {}, "cold_start": {"file": "x.jsonl"}}, "`prompts.pool` and `recommend.explore`"),
        ({"recommend": {"explore": {"start": 3, "end": 3}}}, "start 3 and end 3 leave no dialogue"),
        ({"recommend": {"explore": {}, "tgi": True, "new_tgi": True}}, "choose one"),
        ({"recommend": {"tgi": True}}, "they need `explore`"),
        ({"recommend": {"seeker": {"engine": "openai"}, "explore": {}}}, "the section `openai`"),
        ({"recommend": {"off_formatcheck": True, "rec_format_check": True, "explore": {}}}, "off_formatcheck turns"),
        ({"generate": {}}, "set generate.trigger to null"),
        ({"cold_start": {"explored": True, "file": "x.jsonl"}}, "both are given"),
    ],
)
def test_faults_of_the_config(changes, hint):
    with pytest.raises(ConfigError) as error:
        load({key: value for key, value in (CONFIG | changes).items() if value is not None})
    assert hint in str(error.value)


# ---------------------------------------------------------------- endpoints


def arguments(folder, url, model, budget=1.0):  # noqa: F811
    """A teacher and a seeker behind one endpoint."""
    player = {"engine": "openai", "openai": {"base_url": url, "model": model}, "max_tokens": 12}
    limits = json.dumps({"key_env": None, "prices": PRICES, "budget": budget, "timeout": 20.0})
    settings = {"explore": {"teacher": player, "end": 5}, "seeker": player, "grounding": {"top_k": 2}, "list_length": 2}
    values = {
        "task": "recommend", "prompts": folder / "pool.parquet", "catalogue": folder / "items.pkl", "teacher": limits,
        "seeker": limits, "environment": json.dumps(settings), "output": folder / "out.jsonl",
        "settings": json.dumps({"pool": {"turns": 3, "max_tokens": 24}}),
    }  # fmt: skip
    return ["explore", *(part for name, value in values.items() for part in (f"--{name}", str(value)))]


def test_teacher_and_seeker_behind_a_real_server(server, model, tmp_path, monkeypatch):  # noqa: F811
    prompts = Prompts(pool={"count": {"genre": 8}}, eval={"count": {"genre": 1}}).model_dump(mode="json")
    write_parquet(tmp_path / "pool.parquet", recommend.read_prompts(prompts["pool"], prompts, "pool", 0))
    write_pickle(tmp_path / "items.pkl", {"items": invented.items(), "embedder": "tfidf", "vectors": None})
    proxy = FaultyProxy(server, share=0.2, kinds=("500", "reset"))
    monkeypatch.setattr(sys, "argv", arguments(tmp_path, proxy.url, model, budget=1e-6))
    with pytest.raises(BadInput, match=r"the budget is reached.* for teacher|the budget is reached"):
        explore.main()
    monkeypatch.setattr(sys, "argv", arguments(tmp_path, proxy.url, model))
    explore.main()
    found, rejects = list(read_records(tmp_path / "out.jsonl")), list(read_records(tmp_path / "out.rejects.jsonl"))
    assert len(found) + len(rejects) == 5 and all(reject["reason"] for reject in rejects)
    assert any(len(line["generated_dialog"]) > 1 for line in found + rejects)  # the seeker answered too
    manifest = read_json(tmp_path / "out.json")
    assert manifest["rejects"] == len(rejects) and "key_env" not in json.dumps(manifest["settings"])
    asked, before = sum(proxy.asked.values()), (tmp_path / "out.jsonl").read_bytes()
    explore.main()
    assert sum(proxy.asked.values()) == asked and (tmp_path / "out.jsonl").read_bytes() == before  # paid for once


@pytest.mark.parametrize(
    ("text", "reason"), [("Seeker: No, thanks.", None), ("I want Silver  Harbor!", "gave a target's title away")]
)
def test_a_seeker_must_not_name_what_it_wants(tmp_path, text, reason):
    with says(text) as url:
        player = {"engine": "openai", "openai": {"base_url": url, "model": "m", "key_env": None}}
        player = Recommend(seeker=player).model_dump(mode="json")["seeker"]
        with closing(players.ModelSeeker(player, Ledger(tmp_path, "1_0"), "seeker")) as seeker:
            replies = seeker.answer([(["Silver Harbor"], [{"role": "assistant", "content": "What do you like?"}])])
    assert replies[0].rejected == reason and not replies[0].text.startswith("Seeker:")


# ---------------------------------------------------------------- published formats


def frozen(tmp_path, file, **prompts):
    values = {"eval": {"file": str(file)}} | prompts
    freeze_prompts.freeze(recommend, Prompts.model_validate(values).model_dump(mode="json"), 0, tmp_path / "prompts")
    good = list(read_records(tmp_path / "prompts/eval.parquet"))
    return good, list(read_records(tmp_path / "prompts/rejects.jsonl"))


INSPIRED = "dialog_id speaker text movies movie_dict fine_label utt_id".split()


def inspired(tmp_path, *dialogues):
    """A .tsv of dialogues, each a list of (speaker, text, movies) with an optional label and movie_dict."""
    lines = []
    for name, (rows, label, known) in enumerate(dialogues):
        for number, (speaker, text, movies) in enumerate(rows):
            lines.append(dict(zip(INSPIRED, (f"d{name}", speaker, text, movies, known, label, number))))
    pd.DataFrame(lines, columns=INSPIRED).to_csv(tmp_path / "dev.tsv", sep="\t", index=False)
    return tmp_path / "dev.tsv"


SEEKS = [("RECOMMENDER", "Hi!", ""), ("SEEKER", "Hello.", ""), ("SEEKER", "A war film?", "Alien (1979)")]
NAMES = ("RECOMMENDER", "See Full Metal Jacket.", "Full Metal  Jacket (1987)")
KNOWN = "{'Full Metal Jacket (1987)': 0, 'Joker (2019)': 1}"


def test_inspired_gives_what_was_said_before_the_target(tmp_path):
    file = inspired(
        tmp_path,
        ([*SEEKS, NAMES, ("SEEKER", "Fine.", "")], "accept_others", KNOWN),
        ([*SEEKS, NAMES], "reject", KNOWN),
        ([NAMES, ("SEEKER", "Fine.", "")], "accept_others", KNOWN),
        (SEEKS, "accept_others", KNOWN),
        ([*SEEKS, NAMES], "accept_others", "{'Murder Mystery (2019)': 0"),
        ([("MODERATOR", "Stop.", "")], "accept_others", KNOWN),
    )
    good, rejects = frozen(tmp_path, file)
    assert [record["id"] for record in good] == ["d0"]
    assert json.loads(good[0]["question"]) == {
        "dialog": [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Hello. A war film?"}],
        "target_items": ["Full Metal Jacket (1987)"],
    }
    titles = [one["title"] for one in readers.items_of(good)]
    assert titles == ["Alien (1979)", "Full Metal Jacket (1987)", "Joker (2019)"]
    assert [reject["reason"] for reject in rejects] == [
        "the seeker rejected what was recommended",
        "the seeker says nothing before a target is named",
        "no target item",
        "movie_dict should be a dict, found \"{'Murder Mystery (2019)': 0\"",
        "utterance 0: speaker should be SEEKER or RECOMMENDER, found 'MODERATOR'",
    ]


def test_redial_gives_liked_suggestions(tmp_path):
    def conversation(number, **changes):
        messages = [(1, "Hi, I liked @11"), (2, "Then see @22 or @33"), (1, "Good")]
        return {
            "conversationId": str(number), "initiatorWorkerId": 1, "respondentWorkerId": 2,
            "movieMentions": {"11": "Alien (1979)", "22": "Joker  (2019)", "33": "Us (2019)"},
            "initiatorQuestions": {"22": {"liked": 1}, "33": {"liked": 0}, "11": {"liked": 1}},
            "respondentQuestions": {"22": {"suggested": 1}, "33": {"suggested": 1}, "11": {"suggested": 0}},
            "messages": [{"senderWorkerId": who, "text": text} for who, text in messages],
        } | changes  # fmt: skip

    file = tmp_path / "test_data.jsonl"
    lines = [conversation(0), conversation(1, movieMentions=[]), conversation(2, messages="none")]
    lines.append(conversation(3, messages=[{"senderWorkerId": 7, "text": "I am lost"}]))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    good, rejects = frozen(tmp_path, file)
    assert [json.loads(one["answer"]) for one in good] == [["Joker (2019)"]]
    said = [{"role": "user", "content": "Hi, I liked Alien (1979)"}]
    assert json.loads(good[0]["question"])["dialog"] == said
    assert [reject["reason"] for reject in rejects] == [
        "no target item",
        "movieMentions should be an object and messages a list",
        "message 1: no text, or by neither of both speakers",
    ]


def test_dialogues_of_ones_own_with_a_catalogue(tmp_path):
    file, catalogue = tmp_path / "mine.jsonl", tmp_path / "items.csv"
    dialog = [{"role": "user", "content": "A western?"}]
    rows = [{"dialog": dialog, "target_items": [title]} for title in ("Silver Harbor", "Nowhere")]
    rows += [{"dialog": "A western?", "target_items": ["Silver Harbor"]}, {"dialog": dialog, "target_items": None}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    catalogue.write_text("title,genre\nSilver Harbor,western\n")
    good, rejects = frozen(tmp_path, file, catalogue=str(catalogue), instruction="Be brief.")
    assert len(good) == 1 and json.loads(good[0]["question"])["instruction"] == "Be brief."
    assert [reject["reason"] for reject in rejects] == [
        "the target 'Nowhere' is not in the catalogue",
        "dialog should be messages by user and assistant with content",
        "target_items should be titles, found None",
    ]
    file.write_text('{"text": "A western?"}\n')
    with pytest.raises(BadInput, match=r"mine.jsonl, record 1: has no 'dialog', only 'text'; dialogues are INSPIRED's"):
        frozen(tmp_path, file)
