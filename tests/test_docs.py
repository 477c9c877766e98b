"""Check that what the documents name exists, and that documents, profiles and pins keep the project's rules."""

import ast
import importlib
import itertools
import re
import sys

import pytest
import yaml

from tests.harness import REPOSITORY
from workflow_scripts.config.load import Config, config_model, model_in
from workflow_scripts.config.task_section import section_of
from workflow_scripts.core.running import plugins

DOCUMENTS = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "recipes/*.md", "benchmarks/*.md") for path in REPOSITORY.glob(pattern)
)
RULES = "\n".join(path.read_text() for path in REPOSITORY.glob("rules/**/*.smk"))
STAGES = sorted(
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for path in (REPOSITORY / "workflow_scripts").rglob("*.py")
    if '__name__ == "__main__"' in path.read_text()
    and path.name not in ("sandbox.py", "workers.py", "launch.py", "accept_code.py")
)
SEED_NAMES = (
    "suffix expname version tag modelname modelpath datapath round ds fp mp logp_path memo lr isds "
    "construct_meta.sh construct_data.sh deepseek_logp.sh deepseek_train.sh train.py "
    "fp mp bsz gacc lr gpu kl ml proj rkey rspkey datafilter memo numepoch run_logp.sh run_train.sh uid "
    "prompt_pretokenized MASTER_ADDR MASTER_PORT NUM_GPUS WORKER_NUM NODE_RANK "
    "create_training_data.py grpo sft grpo.sh sft.sh hf_dataset_path ref_models selection_mode num_examples "
    "explore_gpt.py explore_gemini.py add_base_turn make_sft_data num_beams kg_dataset gpt_model start end "
    "test_data log_name model_name sft.py epoch batch_size gradient_accumulation_steps learning_rate "
    "train_only_interaction train_data nproc_per_node grpo.py ref_path model_path ppo_epoch init_kl_coef hardcore "
    "reward turn_num off_formatcheck rerank rec_format_check ref_model do_sample num_generations loss_type "
    "dynamic_sampling e_high step_size resume_start tgi new_tgi log "
    "metric model output_dir output_dataset_name input_data_path inference_max_new_tokens seed "
    "r0_s1_gen_synsft.sh src.data.sft_generator syn_datasets/ openrlhf_train_scripts/train_sft_all.sh "
    "r0_s2_gen_sftfed_all.sh src.data.sft_federated syned_datasets/original_0_sft_fed/ r0_s3_gen_scoreanchors.sh "
    "src.data.synscore_anchors ./score_anchors/ r1_s1_syn_addprompt.sh syn_addprompt.py syn extract addprompt "
    "src.data.schema ds0 ds1 r1_s2_raw_to_csv.sh convert_raw_to_csv.py r1_s3_gen_sftfed_train.sh r1_s4_addreward.sh "
    "syn_addscore.py r1_s5_gen_dpo_train.sh convert_score_to_prefer.py score openrlhf_train_scripts/train_dpo.sh "
    "./src/data/synscore_anchors.yaml num_clusters ./syn_addprompt.yaml num_repeat top_p syn_model client_config "
    "syn_config.sampling_params.temperature scalebio"
).split()


def check_key(key: str) -> None:
    """Raise KeyError unless a dotted name is a key of the config, in a general section or in that of a task."""
    first, *rest = key.split(".")
    section = config_model(first, section_of(first)) if first in plugins.names("tasks") else Config

    for part in (first, *rest):
        section = model_in(section.model_fields[part].annotation)


def keys_in_tables(text: str) -> list[str]:
    """Return the names in the columns of tables that are headed "config key"."""
    keys: list[str] = []
    column = None

    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")] if line.startswith("|") else []
        if "config key" in cells:
            column = cells.index("config key")
        elif not cells:
            column = None
        elif column is not None:
            keys += re.findall(r"`([\w.]+)`", cells[column])

    return keys


def test_keys_in_tables_are_found():
    table = "| a | config key |\n|---|---|\n| `x` | `train.lr`, `seed` |\n\n| a | b |\n| c | `d` |"
    assert keys_in_tables(table) == ["train.lr", "seed"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_named_rules_keys_and_files_exist(path):
    text = path.read_text()

    for rule in re.findall(r"\brules? `(\w+)`", text):
        assert re.search(rf"^ *(use rule \w+ as )?(rule )?{rule}\b", RULES, re.M), f"{path}: no rule {rule}"
    for key in re.findall(r"\bconfig keys? `([\w.]+)`", text):
        check_key(key)
    for key in keys_in_tables(text):
        check_key(key)
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (path.parent / link).exists(), f"{path}: {link} does not exist"
    for name in re.findall(r"`((?:workflow_scripts|rules|recipes|profiles|envs|tests|docs)/[\w./]+)`", text):
        is_example = "mine" in name
        assert is_example or (REPOSITORY / name).exists(), f"{path}: {name} does not exist"
    for module in re.findall(r"python -m (workflow_scripts[\w.]+)", text):
        assert (REPOSITORY / f"{module.replace('.', '/')}.py").exists(), f"{path}: no module {module}"


@pytest.mark.parametrize("name", SEED_NAMES)
def test_every_name_of_the_originals_readme_has_its_place(name):
    pages = [path.read_text() for path in REPOSITORY.glob("docs/recipes/*.md")]
    rows = [line for page in pages for line in page.splitlines() if line.startswith("|")]
    assert any(re.search(rf"`{re.escape(name)}`", row.split("|")[1]) for row in rows), f"{name} is not in the map"


def test_the_table_of_objectives_follows_from_their_files():
    text = (REPOSITORY / "docs/guides/training.md").read_text()
    table = text.split("<!-- objectives")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", table, re.M))
    assert set(rows) == set(plugins.names("training/objectives"))

    for name, row in rows.items():
        source = (REPOSITORY / f"workflow_scripts/training/objectives/{name}.py").read_text()
        docstring = ast.get_docstring(ast.parse(source)) or ""
        formula = " ".join(re.findall(r"^    (.*)", docstring, re.M))
        papers = ", ".join(re.findall(r"\d{4}\.\d{5}", docstring)) or "–"
        constants = plugins.constants("training/objectives", name)
        needs = ", ".join(constants["NEEDS"]) or "–"
        if constants.get("KL") == "reference":
            needs += "; with `kl` also reference"
        assert row == f"`{formula}` | {papers} | {constants['UNIT']} | {needs}"


def test_the_readme_is_a_front_page():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 200


def test_every_rule_that_works_logs_and_is_measured():
    for name, body in re.findall(r"^ *rule (\w+):\n(.*?)(?=^\S|^ *rule |\Z)", RULES, re.M | re.S):
        if "shell:" in body:
            assert "log:" in body, f"rule {name} has no log"
            assert "benchmark:" in body or "localrule: True" in body, f"rule {name} has no benchmark"


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_explains_itself(stage, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{stage.replace('.', '/')}.py", "--help"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", importlib.util.find_spec(stage))

    with pytest.raises(SystemExit) as end:
        importlib.import_module(stage).main()

    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert len(shown.splitlines()) > 5
    assert f"python -m {stage}" in shown


def test_profiles_comment_each_key():
    for path in REPOSITORY.glob("profiles/*/config.yaml"):
        assert yaml.safe_load(path.read_text())["rerun-triggers"] == ["mtime", "params", "input"]
        lines = path.read_text().splitlines()
        for above, line in itertools.pairwise(["", *lines]):
            if re.match(r"[\w-]+:", line):
                assert "#" in line or above.startswith("#"), f"{path}: {line}"


@pytest.mark.parametrize(
    "path", [REPOSITORY / "config.yaml", *sorted(REPOSITORY.glob("recipes/*.yaml"))], ids=lambda path: path.name
)
def test_configs_are_valid(path):
    from workflow_scripts.config.load import load

    load(yaml.safe_load(path.read_text()))


def test_all_versions_are_pinned():
    pins = (REPOSITORY / "envs/constraints.txt").read_text().lower().replace("_", "-")

    for line in (REPOSITORY / "envs/requirements.txt").read_text().splitlines():
        if name := re.sub(r"\[.*\]", "", line.split("#")[0].strip()):
            assert re.search(rf"^{re.escape(name.lower())}==", pins, re.M), f"{name} is not pinned"
