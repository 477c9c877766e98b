"""The config that takes a recipe's place in a rehearsal."""

import pytest
import yaml

from tests.harness import REPOSITORY
from workflow_scripts.config.load import load
from workflow_scripts.workflow.rehearsal import PROMPTS, SAMPLES, endpoint_url, smaller

RECIPES = sorted(path.stem for path in (REPOSITORY / "recipes").glob("*.yaml"))


def values_of(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / f"recipes/{name}.yaml").read_text())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_smaller_config(name):
    values = values_of(name)
    recipe = load(values)
    before = yaml.safe_dump(values)
    cfg = load(smaller(recipe, values))

    assert yaml.safe_dump(values) == before, "the recipe's own values must stay"
    assert cfg.name == f"{recipe.name}-rehearsal"
    assert (cfg.rounds, cfg.shards.auto, cfg.train.processes, cfg.train.deepspeed) == (
        min(1, recipe.rounds),
        1,
        1,
        None,
    )
    assert cfg.generate.auto.samples <= SAMPLES
    assert cfg.generate.auto.max_tokens == recipe.generate.auto.max_tokens
    assert cfg.template == recipe.template
    assert cfg.train.objective == recipe.train.objective
    assert cfg.train.max_length == recipe.train.max_length
    assert not cfg.python
    assert f"runs/{recipe.name}/" not in str(smaller(recipe, values).get("cold_start"))
    for source in cfg.prompts.sources("eval").values():
        assert source.count or source.limit == PROMPTS


def test_endpoints_are_the_rehearsals_own():
    values = values_of("recommend")
    cfg = smaller(load(values), values)
    teacher = cfg["recommend"]["explore"]["teacher"]["openai"]
    assert (
        teacher["base_url"] == cfg["recommend"]["seeker"]["openai"]["base_url"] == endpoint_url("recommend-rehearsal")
    )
    assert teacher["key_env"] is None
    assert teacher["model"] == "gpt-4.1"
