"""A rehearsed recipe with all that the checks look at: configs, files of the rehearsal's run, the stand-in."""

import random
from collections import Counter
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from workflow_scripts import freeze_prompts, tasks
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import Config, load
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pretrained import AutoConfig, AutoTokenizer
from workflow_scripts.core.records import read_records
from workflow_scripts.tasks.defaults import Wing

ROWS = 20_000  # records of a file that are looked at
SAMPLE = 400  # of them that are tokenised and graded


class Rehearsed:
    """The objects that the checks of a rehearsal look at."""

    def __init__(self, values: dict[str, Any]):
        """`values` holds the values of both configs: `recipe` and `rehearsal`."""
        self.recipe: Config = load(values["recipe"])
        self.cfg: Config = load(values["rehearsal"])
        self.run = Run(self.cfg)
        self.task = self.recipe.task
        self.since = 0.0  # when the rehearsal began

    # ------------------------------------------------------------ the task

    @cached_property
    def wing(self) -> Wing:
        """The wing of the recipe itself."""
        return tasks.part_class(self.task, "Wing")(self.recipe, Run(self.recipe))

    @cached_property
    def own_wing(self) -> Wing:
        """The wing of the rehearsal."""
        return tasks.part_class(self.task, "Wing")(self.cfg, self.run)

    def part(self, name: str, stage: str) -> Any:
        """Return a part of the task as a stage of the rehearsal uses it."""
        return tasks.load(self.task, name, self.own_wing.settings(stage), self.own_wing.files(stage))

    # ------------------------------------------------------------ the stand-in

    @cached_property
    def model_folder(self) -> str | None:
        """The folder of the stand-in; None if it could not be made."""
        checkpoint = Path(self.run.initial_model)
        return model_folder(checkpoint) if checkpoint.exists() else None

    @cached_property
    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.model_folder or "")

    @cached_property
    def model_config(self) -> Any:
        return AutoConfig.from_pretrained(self.model_folder or "")

    @property
    def window(self) -> int:
        """The number of tokens in the model's context."""
        return getattr(self.model_config, "max_position_embeddings", 0) or 2**31

    @property
    def ends(self) -> list[int]:
        """The tokens at which generation ends."""
        path = Path(self.model_folder or "") / "generation_config.json"
        ends = read_json(path).get("eos_token_id") if path.is_file() else None
        ends = self.model_config.eos_token_id if ends is None else ends
        return list(ends) if isinstance(ends, list | tuple) else [ends]

    @property
    def has_own_tokenizer(self) -> bool:
        """True if the stand-in has the model's own tokenizer, so that counts of tokens are exact."""
        manifest = read_json(self.run.initial_model)
        return manifest["settings"].get("stand_in") != "description"

    # ------------------------------------------------------------ prompts

    def sources(self, split: str) -> dict[str, Any]:
        """Return the sources of a split that are files of the recipe, or data sets on the hub, by their sets' names."""
        sources = self.recipe.prompts.sources(split).items()
        return {name: source for name, source in sources if source.file and not self.is_made_here(source.file)}

    def is_made_here(self, path: str) -> bool:
        """Return whether a rule makes this file."""
        return path.startswith(f"{Run(self.recipe).folder}/")

    @cache
    def checked(self, split: str) -> tuple[list[Any], Counter[str]]:
        """Return the usable prompts of a split of the recipe's files, and the reasons why others are not usable."""
        eval_keys: set[str] = set()
        if split != "eval" and self.sources("eval"):
            eval_keys = freeze_prompts.keys_of(self.checked("eval")[0], self.reader)

        prompts = []
        reasons: Counter[str] = Counter()
        for source in self.sources(split).values():
            validator = freeze_prompts.Validator(self.reader, eval_keys, tasks.load(self.task, "Grading"))
            records = self.reader.read(source.model_dump(mode="json"), split, self.recipe.seed)
            for prompt in islice(records, ROWS):
                if fault := validator.fault(prompt):
                    reasons[fault] += 1
                else:
                    prompts.append(prompt)

        return prompts, reasons

    def prompts(self, split: str) -> list[Any]:
        """Return the prompts of a split: of the recipe's files, or those of the rehearsal if rules make them."""
        return self.checked(split)[0] if self.sources(split) else self.frozen(split)

    @cached_property
    def reader(self) -> Any:
        """The part of the task that reads the recipe's prompts."""
        files = {name: path for name, path in self.wing.files("freeze_prompts").items() if Path(path).exists()}
        return tasks.load(self.task, "Prompts", self.wing.settings("freeze_prompts"), files)

    def frozen(self, split: str) -> list[Any]:
        """Return the prompts of a split that the rehearsal froze."""
        path = Path(self.run.prompts(split))
        return list(read_records(path)) if path.exists() else []


def sample(items: list[Any], size: int = SAMPLE) -> list[Any]:
    """Return at most `size` items, drawn evenly and the same each time."""
    return items if len(items) <= size else random.Random(0).sample(items, size)
