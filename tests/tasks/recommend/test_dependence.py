"""Test what the results of each stage depend on, and how much memory exploring takes."""

import json
import os
import subprocess
import sys

import pytest

from tests.harness import REPOSITORY, Copy
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import load
from workflow_scripts.config.sections import Prompts as PromptsSection
from workflow_scripts.config.sections import settings_of
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.freeze_prompts import freeze
from workflow_scripts.tasks.recommend import invented
from workflow_scripts.tasks.recommend.prompts import Prompts
from workflow_scripts.tasks.recommend.wing import Wing

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
