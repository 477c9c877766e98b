"""The parts of the task `reference`: prompts, grading, selection, evaluation, and its section of the config."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.harness import Copy, tiny_config
from workflow_scripts import freeze_prompts
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.config.sections import ColdStart as ColdStartSection
from workflow_scripts.config.sections import Prompts as PromptsSection
from workflow_scripts.config.sections import Split
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.records import read_records
from workflow_scripts.rewards.bleu import sentence_bleu
from workflow_scripts.tasks.reference.cold_start import ColdStart
from workflow_scripts.tasks.reference.evaluation import Evaluation, win_rates
from workflow_scripts.tasks.reference.grading import Grading, answer_of
from workflow_scripts.tasks.reference.prompts import Prompts
from workflow_scripts.tasks.reference.selection import Selection

LEVELS = ("greet", "thank", "place")


def write_lines(path, records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


# ---------------------------------------------------------------- prompts


def read_file(file: str, ref_models=("gold",), limit=None) -> list[Any]:
    source = Split(file=file, limit=limit).model_dump()
    return list(Prompts({"ref_models": list(ref_models)}, {}).read(source, "train", 0))


def make_up(name: str, count: dict[str, int], **settings: Any) -> list[Any]:
    return list(Prompts(settings, {}).read(Split(count=count).model_dump(), name, 0))


def pool_record(number: int, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Say {number}."}]
    return {"id": f"p{number}", "source": "s", "messages": messages, "ref_output_gold": f"It is {number}."} | fields


def test_a_pool_gives_references_of_the_chosen_models(tmp_path):
    records = [pool_record(0, ref_output_other="It was 0."), pool_record(1)]
    file = write_lines(tmp_path / "pool.jsonl", records)

    prompts = read_file(file)
    assert [prompt["reference"] for prompt in prompts] == [["It is 0."], ["It is 1."]]
    assert (prompts[0]["id"], prompts[0]["level"], prompts[0]["question"]) == ("p0", "s", "Say 0.")

    both = read_file(file, ["gold", "other"])
    assert both[0]["reference"] == ["It is 0.", "It was 0."]
    assert both[1]["fault"] == "no ref_output_other"
    assert len(read_file(file, limit=1)) == 1


def test_wrong_models_are_told_with_the_right_ones(tmp_path):
    records = [pool_record(0, ref_output_other="It was 0.")]
    with pytest.raises(BadInput, match=r"reference\.ref_models may be gold, other"):
        read_file(write_lines(tmp_path / "pool.jsonl", records), ["gpt"])

    with pytest.raises(BadInput, match="its columns are id, prompt"):
        read_file(write_lines(tmp_path / "plain.jsonl", [{"id": "a", "prompt": "Say hi."}]))


def test_records_of_a_pool_that_cannot_be_asked_have_a_fault(tmp_path):
    """Nothing is guessed about them."""
    odd = [
        {"messages": "hi"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "assistant", "content": "a"}]},
        {"prompt": 5},
        {"prompt": "fine", "ref_output_gold": None},
    ]
    records = [{"ref_output_gold": "x", "id": str(i)} | record for i, record in enumerate([{"prompt": "good"}, *odd])]
    prompts = read_file(write_lines(tmp_path / "pool.jsonl", records))

    assert prompts[0]["question"] == "good" and not prompts[0]["fault"]
    reasons = ["list of messages", "role and content", "no message by the user", "no `prompt`", "no ref_output_gold"]
    for reason, prompt in zip(reasons, prompts[1:], strict=True):
        assert reason in prompt["fault"]


def test_the_first_turn_of_a_conversation_is_the_instruction(tmp_path):
    turns = [("user", "Say a."), ("assistant", "a"), ("user", "Say b."), ("assistant", "b")]
    messages = [{"role": role, "content": content} for role, content in turns]
    [pooled] = read_file(write_lines(tmp_path / "pool.jsonl", [pool_record(0, messages=messages)]))
    assert (pooled["question"], pooled["reference"], pooled["fault"]) == ("Say a.", ["It is 0."], None)

    tulu = {"id": "t0", "source": "ai2-adapt-dev/oasst1", "messages": messages}
    unanswered = tulu | {"id": "t1", "messages": messages[:1]}
    first, second = read_file(write_lines(tmp_path / "tulu.jsonl", [tulu, unanswered]))
    assert (first["question"], first["reference"], first["level"]) == ("Say a.", ["a"], "ai2-adapt-dev/oasst1")
    assert second["fault"] == "no ref_output_gold"


def test_frozen_prompts_hold_a_list_of_references(tmp_path):
    records = [pool_record(0), pool_record(1, ref_output_gold=" "), pool_record(2)]
    file = write_lines(tmp_path / "pool.jsonl", records)
    section = PromptsSection.model_validate({"eval": {"file": file}})
    freeze_prompts.freeze(Prompts({}, {}), section, 0, tmp_path)

    frozen = list(read_records(tmp_path / "eval.parquet"))
    assert [prompt["reference"] for prompt in frozen] == [["It is 0."], ["It is 2."]]
    assert "no ref_output_gold" in (tmp_path / "rejects.jsonl").read_text()


@pytest.mark.parametrize("reference", [None, [], "text", ["good", ""], ["good", None]])
def test_references_edited_by_hand_are_validated(reference):
    prompt = {"id": "a", "question": "Say hi.", "reference": reference, "level": "s"}
    with pytest.raises(BadInput, match=r"row 0 \(id a\): no references"):
        freeze_prompts.check_edited(Prompts({}, {}), "train.parquet", "train", "nowhere.parquet", [prompt])

    freeze_prompts.check_edited(
        Prompts({}, {}), "train.parquet", "train", "nowhere.parquet", [prompt | {"reference": ["Hi."]}]
    )


def test_made_up_instructions_are_disjoint_and_seeded():
    count = dict.fromkeys(LEVELS, 16)
    train = make_up("train", count, references=2)
    held_out = make_up("eval", count, references=2)

    assert not {prompt["question"] for prompt in train} & {prompt["question"] for prompt in held_out}
    assert len({prompt["id"] for prompt in train}) == 48
    assert {len(prompt["reference"]) for prompt in train} == {2}
    assert {len(prompt["reference"]) for prompt in held_out} == {3}  # metrics stay comparable
    assert train == make_up("train", count, references=2)


def test_what_cannot_be_made_up_is_told():
    with pytest.raises(BadInput, match=r"prompts\.eval\.count\.greet: 1000 instructions requested, only \d+ exist"):
        make_up("eval", {"greet": 1000})
    with pytest.raises(BadInput, match="there is no level 'sing'; levels are greet, thank, place"):
        make_up("train", {"sing": 1})


# ---------------------------------------------------------------- cold start


def test_few_answers_of_the_cold_start_are_good():
    count = dict.fromkeys(LEVELS, 200)
    examples = list(ColdStart({}, {}).examples({"count": count, "file": None}, 0))
    references = {prompt["question"]: prompt["reference"] for prompt in make_up("train", dict.fromkeys(LEVELS, 80))}

    known = [example for example in examples if example["question"] in references]
    good = [example for example in known if example["pieces"][0][0].strip() in references[example["question"]]]
    assert len(examples) == 600
    assert 0.1 < len(good) / len(known) < 0.3

    with pytest.raises(BadInput, match=r"cold_start\.count\.greet: give one number"):
        list(ColdStart({}, {}).examples({"count": {"greet": {"direct": 1, "code": 1}}, "file": None}, 0))


def test_worked_answers_come_from_a_file(tmp_path):
    file = write_lines(tmp_path / "solved.jsonl", [{"question": "Say hi.", "solution": "Hi."}])
    section = ColdStartSection(file=file).model_dump()
    [example] = ColdStart({}, {}).examples(section, 0)
    assert (example["question"], example["pieces"]) == ("Say hi.", [("Hi.", True)])

    write_lines(tmp_path / "solved.jsonl", [{"question": "Say hi.", "solution": " "}])
    [example] = ColdStart({}, {}).examples(section, 0)
    assert example["fault"] == "solution should be text that is not empty"


# ---------------------------------------------------------------- grading


def graded(text: str, references: list[str], reward: str | None = None, **fields: Any) -> dict[str, Any]:
    grading = Grading({}, {})
    if reward:
        grading.choose_reward(reward, None)
    record = {"uid": "q.auto.0", "question": "Say hi.", "answer": text, "reference": references} | fields
    return grading.grade(record, None)  # type: ignore[arg-type]


def test_the_answer_within_its_tags_counts():
    assert answer_of("<think>so</think> <answer> yes, it is </answer> more") == "yes, it is"
    assert answer_of(" plain ") == "plain"
    assert answer_of("<answer></answer>") == ""


def test_bleu_is_the_reward_unless_the_config_names_another():
    references = ["the black cat sits down", "no"]
    by_default = graded("<answer>The cat fell down</answer>", references)
    bleu = sentence_bleu("The cat fell down", references)
    assert by_default["reward"] == by_default["bleu"] == bleu
    assert by_default["parts"] == {"bleu": bleu}

    by_rouge = graded("The cat fell down", references, "rouge")
    assert by_rouge["reward"] == by_rouge["rouge_l"] == pytest.approx(2 * 3 / 9)
    assert by_rouge["bleu"] == bleu


def test_a_reward_of_ones_own_reads_the_record(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def short(answer, references, record):\n    return len(record['question']) / len(answer)\n")
    assert graded("four", ["a reference"], f"{file}:short")["parts"] == {f"{file}:short": 7 / 4}
    with pytest.raises(BadInput, match=r"record q\.auto\.0: ZeroDivisionError"):
        graded("", ["a reference"], f"{file}:short")


def test_the_stage_prints_means_of_each_part():
    grading = Grading({}, {})
    answers = [graded("It is good.", ["It is good."]), graded("", ["It is good."])]
    figures = grading.summary(answers, [])  # type: ignore[arg-type]
    assert figures == {"bleu": 0.5, "rouge_l": 0.5, "reward bleu": 0.5, "n": 2}


# ---------------------------------------------------------------- selection


def graded_answer(uid: str, prompt: str, parts: dict[str, float], text: str | None = None) -> dict[str, Any]:
    return {
        "uid": uid, "id": prompt, "question": f"{prompt}?", "prompt_text": f"{prompt}?", "level": "s",
        "reference": ["r"], "answer": text or uid, "parts": parts, "reward": 99.0,
        "prompt_tokens": [1], "tokens": [2], "mask": [1], "policy": "p", "finish": "eos",
    }  # fmt: skip


def select(answers: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Any]:
    selection = Selection({}, {})
    meta = selection.construct_meta(answers, False)  # type: ignore[arg-type]
    assert selection.counts(meta) == {"answers": len(answers)}
    settings = {"advantage": "group_std", "advantage_clip": None, "std_epsilon": 0.0}
    return selection.select({"auto": meta}, settings, 0, None)  # type: ignore


def test_rewards_become_advantages_within_a_prompt():
    bleu = {"a": 0.2, "b": 0.4, "c": 0.3, "d": 0.3}
    prompts = {"a": "two", "b": "two", "c": "one", "d": "one"}
    rows, dropped = select([graded_answer(uid, prompts[uid], {"bleu": bleu[uid]}) for uid in bleu])

    assert {row["uid"]: row["advantage"] for row in rows} == pytest.approx({"a": -1.0, "b": 1.0})
    assert {row["uid"]: row["reward"] for row in rows} == {"a": 0.2, "b": 0.4}
    assert dropped == {"answer in a group without variance": 2}


def test_a_reward_of_several_parts_is_combined_within_a_prompt():
    """The combined reward replaces the one that grading wrote. The answers of the prompts are mixed on purpose."""
    answers = [
        graded_answer("a", "two", {"bleu": 0.1, "rm": 5.0}),
        graded_answer("b", "one", {"bleu": 0.1, "rm": 50.0}),
        graded_answer("c", "two", {"bleu": 0.3, "rm": 5.0}),
        graded_answer("d", "one", {"bleu": 0.2, "rm": 70.0}),
    ]
    rows, _ = select(answers)
    assert [row["uid"] for row in rows] == ["b", "d", "a", "c"]  # by question
    assert [row["reward"] for row in rows] == pytest.approx([-1.0, 1.0, -0.5, 0.5])


def test_equal_answers_count_once_with_dedup():
    answers = [graded_answer(uid, "one", {"bleu": 0.5}, "same") for uid in ("a", "b")]
    meta = Selection({}, {}).construct_meta(answers, True)  # type: ignore[arg-type]
    assert [answer["uid"] for answer in meta["one"]["answers"]] == ["a"]


# ---------------------------------------------------------------- evaluation


def evaluated(bleu: float, rouge_l: float, rm: float, before=None, judged=None) -> dict[str, Any]:
    return {
        "answer": "a b a b", "bleu": bleu, "rouge_l": rouge_l, "parts": {"rm": rm}, "level": "s",
        "before": before, "judged": judged,
    }  # fmt: skip


def test_metrics_are_means_by_level():
    metrics = Evaluation({}, {}).summarise([evaluated(0.1, 0.4, 1.0), evaluated(0.3, 0.5, 1.0)])
    expected = {"bleu": 0.2, "rouge_l": 0.45, "distinct_2": 2 / 6, "length": 4.0, "n": 2}

    assert metrics["by_level"]["s"] == pytest.approx(expected)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert "win_rate" not in metrics  # there is no round before
    assert Evaluation({}, {}).summarise([])["n"] == 0


def test_win_rates_are_against_the_round_before():
    first = [evaluated(0.1, 0.5, 1.0), evaluated(0.2, 0.5, 1.0)]
    second = [evaluated(0.3, 0.5, 0.0, first[0]), evaluated(0.1, 0.6, 0.5, first[1])]
    metrics = Evaluation({}, {}).summarise(second)

    assert [metrics[f"win_rate{name}"] for name in ("", " rouge_l", " rm")] == [0.5, 0.75, 0.0]
    assert metrics["by_level"]["s"]["win_rate"] == 0.5
    assert "win_rate judge" not in metrics


def test_the_judges_verdicts_are_averaged_where_there_are_any():
    before = evaluated(0.0, 0.0, 0.0)
    answers = [evaluated(0.0, 0.0, 0.0, before, verdict) for verdict in (1.0, 0.5, None)]
    assert win_rates(answers)["win_rate judge"] == 0.75


# ---------------------------------------------------------------- config


def reference_config(**changes: Any) -> dict[str, Any]:
    """Return a config of this task with a pool to select from."""
    return {
        "name": "mine",
        "task": "reference",
        "prompts": {"pool": {"file": "pool.jsonl"}, "eval": {"count": {"greet": 2}}},
        "reference": {"selection": {"num_examples": 4}},
        "model": {"path": "somewhere"},
        "generate": {"trigger": None},
    } | changes


def fault(config: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        load(config)
    return str(error.value)


def test_a_pool_and_a_selection_belong_together():
    cfg = load(reference_config())
    assert cfg.versions == ["auto", "eval", "pool"]
    assert load(reference_config(judge={"openai": {"base_url": "u", "model": "m"}}, reward="rouge")).judge

    assert "`reference.selection` belong together" in fault(reference_config(reference={}))
    train = {"train": {"count": {"greet": 2}}, "eval": {"count": {"greet": 2}}}
    assert "`reference.selection` belong together" in fault(reference_config(prompts=train))


def test_a_metric_that_a_model_computes_needs_one():
    config = reference_config(reference={"selection": {"metric": "bertscore"}})
    assert "reward_model: reference.selection.metric bertscore is computed by a model" in fault(config)
    assert load(config | {"reward_model": "encoder"}).reference.selection.metric == "bertscore"
    assert "there is no such reward" in fault(reference_config(reference={"selection": {"metric": "blue"}}))


def test_the_checkpoint_answers_the_pool_itself():
    remote = {"trigger": None, "pool": {"engine": "openai"}, "openai": {"base_url": "u", "model": "m"}}
    text = fault(reference_config(generate=remote))
    assert "generate.pool.engine: " in text and "remote endpoint" in text


def test_an_unknown_reward_is_refused():
    assert "reward: there is no such reward" in fault(tiny_config(reward="blue"))


# ---------------------------------------------------------------- code that results depend on

CODE_IDENTITIES = """
import json
from workflow_scripts import engines, rewards, tasks
from workflow_scripts.core.running.code import code_identity

roots = {
    "generate": [tasks.root("reference", "Conversation"), engines.root("transformers")],
    "grade": [tasks.root("reference", "Grading"), *rewards.roots("bleu")],
    "construct_meta": [tasks.root("reference", "Selection")],
    "construct_data": [tasks.root("reference", "Selection")],
    "evaluate": [tasks.root("reference", "Evaluation")],
    "freeze_prompts": [tasks.root("reference", "Prompts")],
    "tasks.reference.score_pool": rewards.roots("bleu"),
    "tasks.reference.select_prompts": [],
    "tasks.reference.create_training_data": [],
}
digests = {stage: code_identity(f"workflow_scripts.{stage}:main", *more) for stage, more in roots.items()}
print(json.dumps({stage.removeprefix("tasks.reference."): digest for stage, digest in digests.items()}))
"""


def code_identities(copy: Copy) -> dict[str, str]:
    """Return the digest of the code of each stage, as the rules compute it."""
    command = [sys.executable, "-c", CODE_IDENTITIES]
    process = subprocess.run(command, cwd=copy.folder, capture_output=True, text=True, check=True)
    return json.loads(process.stdout)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> tuple[Copy, dict[str, str]]:
    """Return a copy of the workflow and the digests of its code."""
    copy = Copy(tmp_path_factory.mktemp("original"))
    return copy, code_identities(copy)


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("tasks/reference/grading.py", "fmean(parts.values())", "min(parts.values())", {"grade"}),
        ("tasks/reference/grading.py", "match[1] if match", "match[0] if match", {"grade", "score_pool"}),
        ("tasks/reference/grading.py", "Return the means of BLEU", "Return means of BLEU", set()),
        ("rewards/bleu.py", "min(0.0, 1 - ", "min(0.1, 1 - ", {"grade", "score_pool"}),
        ("tasks/reference/selection.py", "rewards.combine(", "sorted(", {"construct_meta", "construct_data"}),
        ("tasks/reference/evaluation.py", "(now == before) / 2", "(now == before) / 3", {"evaluate"}),
        ("tasks/reference/prompts.py", '"ref_output_"', '"output_"', {"freeze_prompts"}),
        ("tasks/reference/select_prompts.py", "-scores[prompt_id]", "scores[prompt_id]", {"select_prompts"}),
    ],
)
def test_an_edit_concerns_only_the_stages_that_use_the_code(original, file, old, new, stages):
    copy, before = original
    copy.edit(f"workflow_scripts/{file}", old, new)
    after = code_identities(copy)
    copy.edit(f"workflow_scripts/{file}", new, old)

    assert {stage for stage in before if before[stage] != after[stage]} == stages
