"""What the documents name exists, and the house keeps its own rules."""

import importlib
import itertools
import re
import sys

import pytest
import yaml
from conftest import REPOSITORY

from workflow_scripts.core.config import Config

RULES = "\n".join(path.read_text() for path in REPOSITORY.glob("rules/*.smk"))
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


def field(path: str):
    """The settings field that a dotted config key names."""
    section = Config
    for part in path.split("."):
        annotation = section.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next((option for option in options if hasattr(option, "model_fields")), None)
    return path


@pytest.mark.parametrize("document", ["README.md", "recipes/README.md"])
def test_named_rules_keys_and_files_exist(document):
    text = (REPOSITORY / document).read_text()
    for rule in re.findall(r"\brules? `(\w+)`", text):
        assert re.search(rf"^ *(use rule \w+ as )?(rule )?{rule}\b", RULES, re.M), f"{document}: no rule {rule}"
    for key in re.findall(r"\bconfig keys? `([\w.]+)`", text):
        field(key)
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert ((REPOSITORY / document).parent / link).exists(), f"{document}: {link} does not exist"
    for path in re.findall(r"`((?:workflow_scripts|rules|recipes|profiles|envs|tests)/[\w./]+)`", text):
        assert (REPOSITORY / path).exists(), f"{document}: {path} does not exist"


@pytest.mark.parametrize("name", SEED_NAMES)
def test_every_name_of_the_originals_readme_has_its_place(name):
    rows = [line for line in (REPOSITORY / "recipes/README.md").read_text().splitlines() if line.startswith("|")]
    assert any(re.search(rf"`{re.escape(name)}`", row.split("|")[1]) for row in rows), f"{name} is not in the map"


def test_every_rule_that_works_logs_and_is_measured():
    for name, body in re.findall(r"^ *rule (\w+):\n(.*?)(?=^\S|^ *rule |\Z)", RULES, re.M | re.S):
        if "shell:" in body:
            assert "log:" in body, f"rule {name} has no log"
            assert "benchmark:" in body or "localrule: True" in body, f"rule {name} has no benchmark"


@pytest.mark.parametrize("stage", sorted(p.stem for p in (REPOSITORY / "workflow_scripts").glob("[a-z]*.py")))
def test_every_stage_explains_itself(stage, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{stage}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"workflow_scripts.{stage}").main()
    shown = capsys.readouterr().out
    assert end.value.code == 0 and len(shown.splitlines()) > 5 and f"python -m workflow_scripts.{stage}" in shown


def test_imports_point_down_only():
    floors = {"core": 0, "engines": 1, "training": 1, "dialogues": 1, "tasks": 1}
    for path in (REPOSITORY / "workflow_scripts").rglob("*.py"):
        floor = floors.get(path.relative_to(REPOSITORY / "workflow_scripts").parts[0], 2)
        for module in re.findall(r"^\s*(?:from|import) workflow_scripts\.(\w+)", path.read_text(), re.M):
            assert floors.get(module, 2) <= floor, f"{path} imports {module}, which stands above it"
            if floor == 0:
                assert module == "core", f"{path} imports {module}"


def test_profiles_comment_each_key():
    for path in REPOSITORY.glob("profiles/*/config.yaml"):
        assert yaml.safe_load(path.read_text())["rerun-triggers"] == ["mtime", "params", "input"]
        lines = path.read_text().splitlines()
        for above, line in itertools.pairwise(["", *lines]):
            if re.match(r"[\w-]+:", line):
                assert "#" in line or above.startswith("#"), f"{path}: {line}"


def test_all_versions_are_pinned():
    pins = (REPOSITORY / "envs/constraints.txt").read_text().lower().replace("_", "-")
    for line in (REPOSITORY / "envs/requirements.txt").read_text().splitlines():
        if name := line.split("#")[0].strip():
            assert re.search(rf"^{re.escape(name.lower())}==", pins, re.M), f"{name} is not pinned"
