"""Write a config with comments: a new one, or a recipe with another model and other questions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from workflow_scripts.config.load import load
from workflow_scripts.config.sections import Split
from workflow_scripts.config.task_section import section_of
from workflow_scripts.core.errors import BadInput
from workflow_scripts.starting.models import ModelFacts

HERE = Path(__file__).parent
MOST_PER_ROUND = {"gpu": 500, "cpu": 64}  # questions that a round answers
MOST_TOKENS = {"gpu": 1024, "cpu": 256}  # of an answer


@dataclass(frozen=True)
class Experiment:
    """What a first config says."""

    name: str
    task: str
    model: ModelFacts
    template: str
    train: Split
    evaluation: Split
    questions: int  # train questions
    gpus: int
    output: Path


def new_config(experiment: Experiment) -> str:
    """Return a config of GRPO's form: groups of answers, advantages within groups, the clipped objective."""
    machine = "gpu" if experiment.gpus else "cpu"
    context = experiment.model.context or 4096
    per_round = min(MOST_PER_ROUND[machine], experiment.questions)
    max_tokens = min(MOST_TOKENS[machine], context // 2)

    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("config.yaml.jinja").render(
        experiment=experiment,
        model=flow(model_section(experiment.model)),
        train=flow(source_section(experiment.train)),
        evaluation=flow(source_section(experiment.evaluation)),
        section=section_of(experiment.task).starting,
        flow=flow,
        has_gpu=machine == "gpu",
        takes_reward=section_of(experiment.task).takes_reward,
        shards=max(1, experiment.gpus),
        per_round=per_round if per_round < experiment.questions else None,
        max_tokens=max_tokens,
        max_length=min(2 * max_tokens, context),
        batch_size=max(8, min(256, per_round)),
    )


def recipe_config(recipe: Path, experiment: Experiment) -> str:
    """Return a recipe's text with the name, the model and the questions of an experiment; its comments stay."""
    text = recipe.read_text()
    values = yaml.safe_load(text)
    prompts = dict(values["prompts"])
    prompts["pool" if "pool" in prompts else "train"] = source_section(experiment.train)
    prompts["eval"] = source_section(experiment.evaluation)

    text = with_section(text, "name", f"name: {experiment.name}\n")
    if "template" in values:
        text = with_section(text, "template", f"template: {experiment.template}\n")
    text = with_section(text, "model", f"model: {flow(model_section(experiment.model))}\n")
    lines = "".join(f"  {split}: {flow(section)}\n" for split, section in prompts.items())
    text = with_section(text, "prompts", f"prompts:\n{lines}")
    return (
        f"# Made of {recipe} by `python -m workflow_scripts.init`, with another model and other questions.\n#\n{text}"
    )


def check_recipe(recipe: Path) -> dict[str, Any]:
    """Return a recipe's values. Raise BadInput if its questions do not come from `prompts`."""
    if not recipe.is_file():
        raise BadInput(f"--recipe: there is no file {recipe}; recipes/README.md lists the recipes")

    values = yaml.safe_load(recipe.read_text())
    prompts = values.get("prompts") if isinstance(values, dict) else None
    if not prompts or not {"train", "pool"} & prompts.keys():
        raise BadInput(
            f"--recipe {recipe}: its rounds do not start from a file of questions (section `prompts`); copy it, and "
            "edit the files that it names"
        )
    return values


def with_section(text: str, key: str, section: str) -> str:
    """Return a YAML text with another section in place of the one under a top-level key."""
    lines = text.splitlines(keepends=True)
    pairs = yaml.compose(text).value

    for name, value in pairs:
        if name.value == key:
            first = name.start_mark.line
            last = _last_line(value)
            return "".join([*lines[:first], section, *lines[last + 1 :]])

    raise BadInput(f"the recipe has no section {key!r}")


def _last_line(node: yaml.Node) -> int:
    """Return the last line of a value. The end of a block is marked where the next text begins, after blank lines."""
    if isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
        return _last_line(node.value[-1][1])
    return node.end_mark.line


def source_section(source: Split) -> dict[str, Any]:
    """Return the keys of a source that differ from their defaults."""
    return source.model_dump(mode="json", exclude_defaults=True)


def model_section(facts: ModelFacts) -> dict[str, Any]:
    """Return the section `model`."""
    return {"path": facts.path} | ({"parameters": float(facts.parameters)} if facts.parameters else {})


def flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.strip().removesuffix("...").strip()


def check_config(text: str, output: Path) -> None:
    """Raise ConfigError with all faults of a config's text."""
    values = yaml.safe_load(text)
    if not isinstance(values, dict):
        raise BadInput(f"{output}: this is no config")
    load(values)
