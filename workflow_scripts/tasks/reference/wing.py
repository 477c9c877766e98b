"""Inputs, parameters and products that the task `reference` adds to the rules."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.config.sections import settings_of
from workflow_scripts.tasks import defaults

if TYPE_CHECKING:
    from workflow_scripts.tasks.reference.settings import Selection, Settings


class Wing(defaults.Wing):
    """The files of the selection from a pool, with BLEUBERI's names."""

    @property
    def section(self) -> "Settings":
        """The config section `reference`."""
        return self.cfg.task_section  # type: ignore[return-value]

    @property
    def selection(self) -> "Selection | None":
        """The settings by which train prompts are selected from the pool, if they are."""
        return self.section.selection

    # ------------------------------------------------------------ general stages

    def settings(self, stage: str) -> dict[str, Any]:
        if stage == "freeze_prompts":
            return settings_of(self.section, include={"ref_models", "references"})
        return {}

    def reward(self, stage: str) -> str | None:
        return self.selection.metric if self.selection and stage == "score_pool" else None

    def products(self, n: int) -> list[str]:
        return [self.grpo_data, self.sft_data] if n and self.selection else []

    def targets(self, n: int) -> dict[str, list[str]]:
        if n or not self.selection:
            return {}
        return {"scores": [self.scores], "prompts": [self.run.prompts("train"), self.grpo_data, self.sft_data]}

    def named_files(self) -> dict[str, str]:
        if not self.selection:
            return {}
        named = {"inference": self.selection.inference, "scores": self.selection.scores}
        return {f"reference.selection.{key}": file for key, file in named.items() if file}

    # ------------------------------------------------------------ files

    @property
    def existing_answers(self) -> list[str]:
        """The file of answers to the pool that exist already, if there is one."""
        return [self.selection.inference] if self.selection and self.selection.inference else []

    def pool_answers(self, shard: str = "{shard}") -> str:
        """The answers of round 0's checkpoint to the pool, for one shard."""
        return f"{self.run.folder}/inference/{shard}.pkl"

    def all_pool_answers(self) -> list[str]:
        """The answers of round 0's checkpoint to the pool, all shards."""
        return [self.pool_answers(shard) for shard in self.run.shards("pool")]

    @property
    def inference(self) -> str:
        """All answers to the pool as a table."""
        return f"{self.run.folder}/inference_outputs/{self.run.tag}_inference_results.csv"

    @property
    def scores(self) -> str:
        """The scores of the answers to the pool."""
        return f"{self.run.folder}/scored_outputs/{self._scored}.json"

    @property
    def histogram(self) -> str:
        """The histogram of the scores."""
        return f"{self.run.folder}/scored_outputs/{self._scored}.png"

    @property
    def grpo_data(self) -> str:
        """The folder of the selected prompts, one row per prompt."""
        return f"{self.run.folder}/data_grpo/{self._selected}"

    @property
    def sft_data(self) -> str:
        """The folder of the selected prompts, one row per reference."""
        return f"{self.run.folder}/data_sft/{self._selected}_SFT"

    @property
    def _scored(self) -> str:
        """The names of pool, metric, model and references, as the original joins them."""
        assert self.selection and self.cfg.prompts.pool
        pool = Path(self.cfg.prompts.pool.file or "made_up").stem
        metric = Path(self.selection.metric).stem
        models = self.section.ref_models
        return f"{pool}_{metric}_{self.run.tag}_{len(models)}ref-{'-'.join(models)}"

    @property
    def _selected(self) -> str:
        assert self.selection
        return f"{self._scored}_{self.selection.mode}_{self.selection.num_examples}"
