"""The config: every fault is reported at once, with its path and a hint, and every recipe is valid."""

import re

import pytest
import yaml

from tests.harness import REPOSITORY, tiny_config
from workflow_scripts.config.load import Config, ConfigError, config_model, load
from workflow_scripts.config.sections import Generate, Judge, endpoints_of, settings_of
from workflow_scripts.config.task_section import TaskSection
from workflow_scripts.core.running import plugins

ENDPOINT = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
PAIRS = {"source": {"file": "a.jsonl", "format": "preference"}}


def faults(**changes) -> str:
    """Return the faults of the tiny config with these changes."""
    with pytest.raises(ConfigError) as error:
        load(tiny_config(**changes))
    return str(error.value)


def without_train_prompts(**changes) -> dict:
    """Return the tiny config without questions of the rounds."""
    config = tiny_config(**changes)
    return config | {"prompts": {"eval": config["prompts"]["eval"]}}


# ---------------------------------------------------------------- keys and their hints


def test_every_fault_is_reported_at_once_with_its_path():
    text = faults(name="two words", task="nothing", round=3, train={"lr": -1, "epochs": "many"}, prompts={"train": {}})

    for expected in (
        "config: name: ",
        "config: task: there is no task 'nothing'; choose from code, math, ",
        "config: round: there is no such key; did you mean 'rounds'?",
        "config: train.lr: ",
        "config: train.epochs: ",
        "config: prompts.train: give either `file` or `count`",
    ):
        assert expected in text, text


@pytest.mark.parametrize(
    ("section", "hint"),
    [
        ({"train": {"batchsize": 1}}, "train.batchsize: there is no such key; did you mean 'batch_size'?"),
        ({"results": {1: {"aut": ["x.pkl"]}}}, "results.1.aut: there is no such key; did you mean 'auto'?"),
        ({"results": {1: {}}}, "results.1: name at least one file"),
        ({"math": {"swiches": []}}, "math.swiches: there is no such key; did you mean 'switches'?"),
        ({"reference": {}}, "reference: there is no such key; this section belongs to task reference"),
        ({"generate": {"auto": {"temperature": 0.5}}}, "it must equal generate.auto.temperature"),
        ({"generate": {"auto": {"temperature": 0}, "trigger": None}}, "generate.auto.temperature: 0 is greedy"),
        (
            {"generate": {"eval": {"samples": 4, "temperature": 0}}},
            "all answers to a question are alike; use samples: 1",
        ),
        ({"generate": {"auto": {"top_p": 0.9}}}, "answers must be sampled with top_p 1 and top_k 0, found 0.9 and 0"),
        ({"data": {"truncated_reward": -1.0}}, "data.truncated_reward: only `truncated: penalise` uses it"),
        ({"data": {"max_length": 4096}}, "data.max_length 4096: training rejects rows longer than train.max_length"),
        ({"data": {"truncated": "drop"}}, "data.truncated: Input should be 'keep', 'mask' or 'penalise', found 'drop'"),
        ({"rounds": 10**9}, "rounds: Input should be less than or equal to 10000"),
        ({"shards": 100_000}, "shards.auto: Input should be less than or equal to 1000"),
        ({"name": "a" * 300}, "name: "),
        (
            {"generate": {"auto": {"repetition_penalty": 1.1}}},
            "generate.auto.repetition_penalty: it changes the dist",
        ),
        (
            {"generate": {"auto": {"structured": {"regex": "a"}}}},
            "generate.auto.structured: the engine transformers",
        ),
        ({"generate": {"eval": {"structured": {"regex": "("}}}}, "`regex` is not a regular expression: missing )"),
        (
            {"generate": {"eval": {"structured": {"json_schema": {"type": 1}}}}},
            "`json_schema` is not a JSON schema: 1",
        ),
        ({"generate": {"eval": {"structured": {}}}}, "give either `regex` or `json_schema`; neither is given"),
        ({"generate": {"eval": {"stop": [""]}}}, "generate.eval.stop.0: String should have at least 1 character"),
        (
            {"generate": {"vllm": {"max_num_seqs": 8}}},
            "generate.vllm: no answers are given by vllm; the engine is tr",
        ),
        ({"generate": {"vllm": {"gpu_memory_utilization": 1.1}}}, "generate.vllm.gpu_memory_utilization: "),
        ({"generate": {"engine": "opeani"}}, "generate.engine: there is no engine 'opeani'; choose from openai, "),
        ({"generate": {"engine": "openai"}}, "generate.eval.engine: evaluation and selection must run the checkpoint"),
        ({"generate": {"auto": {"engine": "openai"}}}, "generate.openai: the engine openai needs `base_url`"),
        ({"generate": {"openai": ENDPOINT | {"budget": 1}}}, "a budget needs `prices"),
        (
            {"generate": {"openai": ENDPOINT, "auto": {"engine": "openai", "top_k": 5}}},
            "generate.auto.top_k: the OpenAI protocol has no top_k",
        ),
        ({"generate": {"gpus": 4, "tensor_parallel": 3}}, "generate.gpus 4 is not a multiple of"),
        ({"python": {"vlm": "x"}}, "python.vlm: there is no such environment"),
        ({"cold_start": None}, "a model from `scratch` knows nothing"),
        ({"reward": "blue"}, "reward: there is no such reward; choose "),
    ],
)
def test_hints(section, hint):
    assert hint in faults(**section)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("train", {"objective": "clib"}, "train.objective: there is no objective 'clib'; choose from cispo, clip, "),
        ("train", {"objective": "topr", "kl": 0.5}, "kl: objective topr has no such term"),
        (
            "train",
            {"objective": "sft", "correction": "mask"},
            "correction, max_mismatch: objective sft takes no",
        ),
        ("train", {"correction_cap": 1.0}, "train.correction_cap: Input should be greater than 1"),
        ("train", {"objective": "sft", "min_ess": 0.5}, "min_ess: objective sft takes no ratios"),
        ("train", {"schedule_over": "rounds"}, "schedule_over: rounds needs updates_per_round"),
        ("train", {"objective": "dpo"}, "dpo: it learns from pairs, but the rounds' data are single rows"),
        ("train", {"dtype": "bfloat16"}, "so both must be the same"),
        ("train", {"adam_beta2": 1}, "train.adam_beta2"),
        ("cold_start", {"train": {"objective": "clip"}}, "cold_start.train.objective"),
        (
            "cold_start",
            {"train": {"updates_per_round": 2, "schedule_over": "rounds"}},
            "cold_start.train.schedule_over",
        ),
    ],
)
def test_settings_without_effect_or_with_a_bad_one_are_refused(section, change, message):
    assert re.search(message, faults(**{section: tiny_config()[section] | change}))


# ---------------------------------------------------------------- sources of prompts and rows


@pytest.mark.parametrize(
    "config",
    [tiny_config(data={"source": {"file": "a.jsonl", "format": "sft"}}), without_train_prompts()],
    ids=["both", "none"],
)
def test_rows_come_either_from_answers_or_from_a_file(config):
    with pytest.raises(
        ConfigError, match=r"give exactly one of `prompts\.train`.*found (none|prompts\.train and data\.source)"
    ):
        load(config)


def test_a_task_that_uses_no_pool_refuses_one():
    config = without_train_prompts()
    config["prompts"]["pool"] = {"file": "pool.jsonl"}

    with pytest.raises(ConfigError, match=r"prompts\.pool: task 'math' does not use a pool; give prompts\.train"):
        load(config)


def test_keys_that_a_format_does_not_use_are_refused():
    source = PAIRS["source"] | {"reward_key": "score"}
    with pytest.raises(ConfigError, match=r"data\.source: format preference does not use `reward_key`"):
        load(without_train_prompts(data={"source": source}))

    pairs = without_train_prompts(data={"source": source | {"reward_key": "accuracy"}}, train={"objective": "dpo"})
    assert load(pairs).data.source.split == "train"


def test_pairs_are_for_objectives_on_pairs():
    with pytest.raises(ConfigError, match="clip: it learns from tokens, but the rounds' data are preference pairs"):
        load(without_train_prompts(data=PAIRS))


def test_replay_needs_ratios_and_rounds_with_answers_of_their_own():
    data = tiny_config()["data"]
    replay = data | {"replay": {"rounds": 2}}
    train = tiny_config()["train"]

    load(tiny_config(data=replay, train=train | {"max_staleness": 0.5}))
    assert "data.replay: objective sft takes no ratios" in faults(data=replay, train=train | {"objective": "sft"})
    assert "only rows that are replayed can be stale" in faults(train=train | {"max_staleness": 0.5})
    with pytest.raises(ConfigError, match=r"data\.replay: with `data\.source`, all rounds train"):
        load(without_train_prompts(data=PAIRS | {"replay": {}}, train={"objective": "dpo"}))


ROWS = {"file": "rows.pkl", "format": "task"}


@pytest.mark.parametrize(
    "section", [{"results": {1: {"auto": ["x.pkl"]}}}, {"meta": {1: {"auto": "x.pkl"}}}, {"rows": {1: ROWS}}]
)
def test_files_of_one_round_and_rows_of_all_rounds_exclude_each_other(section):
    [name] = section
    with pytest.raises(ConfigError, match=rf"{name}: they stand in for a round's own, and with `data\.source`"):
        load(without_train_prompts(data=PAIRS, train={"objective": "dpo"}, **section))


def test_a_round_starts_from_files_at_one_stage_only():
    message = "round 2 starts from meta and from rows; name its files in one of these sections only"
    assert message in faults(rounds=2, meta={2: {"trigger": "x.pkl"}}, rows={2: ROWS})


@pytest.mark.parametrize(
    ("section", "hint"),
    [
        ({"meta": {1: {}}}, "meta.1: name a file under `auto`, under `trigger` or under both"),
        ({"meta": {0: {"auto": "x.pkl"}}}, "meta.0"),
        ({"rows": {1: ROWS | {"format": "taks"}}}, "rows.1.format: "),
        ({"rows": {1: ROWS | {"reward_key": "r"}}}, "rows.1: format task does not use `reward_key`; its keys are none"),
        ({"rows": {1: ROWS | {"format": "preference"}}}, "rows.1.format preference: these are preference pairs, but "),
        (
            {"rows": {1: ROWS | {"file": "some/dataset", "logp": ["x"]}}},
            "rows.1.logp: log-probs are of the rows in",
        ),
        ({"task": "code", "math": None, "meta": {1: {"auto": "x.pkl"}}}, "meta: task 'code' cannot read answers from"),
    ],
)
def test_hints_for_files_of_a_round(section, hint):
    config = tiny_config(**section)
    config = {key: value for key, value in config.items() if value is not None}
    with pytest.raises(ConfigError) as error:
        load(config)
    assert hint in str(error.value)


def test_questions_are_needed_for_the_rounds_that_do_not_start_from_files():
    load(without_train_prompts(rounds=2, meta={1: {"auto": "x.pkl"}}, rows={2: ROWS}))

    with pytest.raises(ConfigError, match=r"give exactly one of `prompts\.train`"):
        load(without_train_prompts(rounds=3, meta={1: {"auto": "x.pkl"}}, rows={2: ROWS}))


def test_rows_of_all_rounds_may_be_pairs_whatever_the_task_makes():
    pairs = {"file": "a.jsonl", "format": "preference"}
    assert load(without_train_prompts(rounds=1, rows={1: pairs}, train={"objective": "dpo"})).rows[1].format
    assert "learns from pairs, but the rounds' data are single rows" in faults(
        rounds=2, rows={1: pairs}, train={"objective": "dpo"}
    )


# ---------------------------------------------------------------- splits and eval sets


def prompts_faults(**prompts) -> str:
    """Return the faults of the tiny config with these prompts."""
    train = tiny_config()["prompts"]["train"]
    return faults(prompts={"train": train} | prompts)


@pytest.mark.parametrize(
    ("prompts", "fault"),
    [
        ({}, "prompts.eval: this key is required; only a run whose rounds all start from existing"),
        ({"eval": {}}, "prompts.eval: give either `file` or `count`; neither is given"),
        ({"eval": {"fil": "a.jsonl"}}, "prompts.eval.fil: there is no such key; did you mean 'file'?"),
        ({"eval": {"a": {"fil": "a"}}}, "prompts.eval.a.fil: there is no such key; did you mean 'file'?"),
        ({"eval": {"a b": {"file": "a"}}}, "prompts.eval.a b"),
        ({"eval": {"count": {"one_digit": 1}, "split": "test"}}, "prompts.eval: `split` belongs to a `file`"),
        (
            {"question_key": "q", "eval": {"file": "a.jsonl"}},
            "config: prompts: each split has its own `question_key`: move it into the splits, as in "
            "`train: {file: …, question_key: q}`",
        ),
    ],
)
def test_faults_of_splits(prompts, fault):
    assert fault in prompts_faults(**prompts)


def test_there_may_be_several_eval_sets():
    sets = {"gsm8k": {"file": "openai/gsm8k", "subset": "main", "split": "test"}, "mine": {"count": {"one_digit": 9}}}
    config = tiny_config()
    config["prompts"]["eval"] = sets
    cfg = load(config)

    assert {name: source.file for name, source in cfg.prompts.sources("eval").items()} == {
        "gsm8k": "openai/gsm8k",
        "mine": None,
    }
    assert list(cfg.prompts.sources("train")) == [""]
    assert settings_of(cfg.prompts)["eval"] == sets
    assert cfg.prompts.model_validate(settings_of(cfg.prompts)) == cfg.prompts


def test_a_run_on_existing_rows_needs_no_eval_questions():
    rows = {"source": {"file": "a.jsonl", "format": "sft"}}
    config = tiny_config(data=rows, train={"objective": "sft"}) | {"prompts": {}}
    assert not load(config).evaluates
    del config["prompts"]
    assert load(config).versions == ["auto", "trigger"]


# ---------------------------------------------------------------- values


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert yaml.safe_load("lr: 1e-6") == {"lr": "1e-6"}
    assert load(tiny_config(train={"lr": "1e-6"})).train.lr == 1e-6


@pytest.mark.parametrize("value", [True, False, "on", "off"])
def test_on_and_off_survive_yaml(value):
    assert load(tiny_config(sandbox=value)).sandbox == {True: "on", False: "off"}.get(value, value)


def test_null_on_the_command_line_is_null():
    assert load(tiny_config(generate={"trigger": "null"})).generate.trigger is None


def test_a_tasks_own_section_is_part_of_the_config():
    cfg = load(tiny_config())

    assert cfg.task_section is cfg.math
    assert cfg.math.switches == ("keeptrigger", "all")


def test_no_task_is_named_as_a_key_of_the_config():
    with pytest.raises(ConfigError, match="task train: the name of a task must not be a key of the config"):
        config_model("train", TaskSection)
    assert not set(plugins.names("tasks")) & set(Config.model_fields)


# ---------------------------------------------------------------- what is passed on to stages


def test_keys_at_their_neutral_value_are_not_passed_on():
    generate = Generate()
    assert settings_of(generate) == {}
    assert settings_of(generate.model_copy(update={"batch_size": 8})) == {"batch_size": 8}
    assert settings_of(load(tiny_config()).cold_start.train)["objective"] == "sft"  # neutral for the stage is clip


def test_limits_and_prices_of_an_endpoint_are_passed_on_apart_from_what_results_depend_on():
    judge = Judge(openai={**ENDPOINT, "concurrency": 3, "key_env": None}, max_tokens=4)

    assert settings_of(judge) == {"openai": ENDPOINT, "max_tokens": 4}
    endpoints = endpoints_of(judge)
    assert endpoints.keys() == {"openai"}
    assert endpoints["openai"].keys().isdisjoint(ENDPOINT)
    assert endpoints["openai"]["concurrency"] == 3


# ---------------------------------------------------------------- what is shipped


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("recipes/*.yaml")), ids=lambda p: p.stem)
def test_recipes_are_valid_and_named_after_their_file(path):
    assert load(yaml.safe_load(path.read_text())).name == path.stem


def test_each_key_of_the_default_config_has_a_comment():
    for number, line in enumerate((REPOSITORY / "config.yaml").read_text().splitlines(), 1):
        assert not re.match(r"\s*\w+:", line) or "#" in line, f"config.yaml, line {number} has no comment: {line}"


def test_the_default_config_has_no_key_that_the_schema_does_not_have():
    assert isinstance(load(yaml.safe_load((REPOSITORY / "config.yaml").read_text())), Config)
