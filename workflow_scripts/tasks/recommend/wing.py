"""Inputs, parameters and products that the task `recommend` adds to the rules."""

from typing import Any

from workflow_scripts.config.sections import endpoints_of, settings_of
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.recommend.settings import Settings

# The keys of the section that the results of a stage depend on. Those of `explore` stand below.
KEYS = {
    "freeze_prompts": {"instruction", "history"},
    "explore": {"seeker", "grounding", "list_length"},
    "rerank": {"grounding", "list_length"},
    "make_sft_data": {"tgi", "new_tgi", "start", "end"},
    "generate": {
        "seeker",
        "grounding",
        "hardcore",
        "list_length",
        "off_formatcheck",
        "rec_format_check",
        "resamples",
    },
    "generate_eval": {"seeker", "grounding"},
    "grade": {"grounding", "list_length", "rerank", "reward", "bonus"},
    "script": {"seeker", "grounding", "list_length"},
}
KEYS_OF_EXPLORE = {
    "freeze_prompts": {"explored", "reranked", "sft"},
    "import_dialogues": {"explored", "reranked", "sft", "start", "end"},
    "explore": {"teacher", "start", "end"},
    "make_sft_data": {"only_success", "train_only_interaction"},
}

STEPS = {"explored": "", "reranked": "_rerank", "sft": "_base_turn"}  # by the format of a file of dialogues


class Wing(defaults.Wing):
    """The catalogue, the teacher's dialogues, and a seeker that may be behind an endpoint."""

    @property
    def section(self) -> Settings:
        """The config section `recommend`."""
        return self.cfg.task_section  # type: ignore[return-value]

    @property
    def catalogue(self) -> str:
        """The items that can be recommended."""
        return f"{self.run.folder}/catalogue/items.pkl"

    def explored(self, step: str = "") -> str:
        """The teacher's dialogues as they were explored, or after a step: _rerank, _base_turn, _sft."""
        return f"{self.run.folder}/explore/{self.run.tag}{step}.jsonl"

    @property
    def imported_step(self) -> str | None:
        """The step that dialogues from a file have reached (see `explored`); None if a teacher explores."""
        source = self.section.explore and self.section.explore.source
        return STEPS[source[0]] if source else None

    @property
    def is_reranked(self) -> bool:
        """True if the cold start learns rewritten lists."""
        explore = self.section.explore
        return bool(explore) and (explore.rerank or explore.reranked is not None)

    @property
    def prompts_are_made_up(self) -> bool:
        """True if the task makes up the prompts of all splits; then the items are the made-up films."""
        prompts = self.cfg.prompts
        return all(source.count for split in ("train", "pool", "eval") for source in prompts.sources(split).values())

    def files(self, stage: str) -> dict[str, str]:
        if stage in ("generate", "generate_eval", "grade"):
            return {"catalogue": self.catalogue}
        if stage == "script":
            pool = {"pool": self.run.prompts("pool")} if self.section.explore else {}
            return {"catalogue": self.catalogue} | pool
        if stage == "freeze_prompts" and self.section.catalogue:
            return {"catalogue": self.section.catalogue}
        return {}

    def settings(self, stage: str) -> dict[str, Any]:
        values = settings_of(self.section, include=KEYS.get(stage, set()))
        if stage in KEYS_OF_EXPLORE and self.section.explore:
            keys = settings_of(self.section.explore, include=KEYS_OF_EXPLORE[stage])
            if (
                keys or stage != "freeze_prompts"
            ):  # the other stages need the section even if all its values are neutral
                values["explore"] = keys
        return values

    @property
    def catalogue_grounding(self) -> dict[str, Any] | None:
        """The keys of `grounding` that the catalogue depends on, beside the embedder; None if all are neutral."""
        return settings_of(self.section.grounding, include={"openai", "vectors", "text"}) or None

    def endpoints(self, stage: str) -> dict[str, Any]:
        endpoints = {}
        if stage in ("catalogue", "explore", "rerank", "generate", "generate_eval", "grade"):
            endpoints["grounding"] = endpoints_of(self.section.grounding)
        if stage in ("explore", "generate", "generate_eval"):
            endpoints["seeker"] = endpoints_of(self.section.seeker)
        if stage == "explore":
            endpoints["explore"] = endpoints_of(self.section.explore)
        return {name: value for name, value in endpoints.items() if value}

    def calls_endpoint(self, stage: str) -> bool:
        return bool(self.endpoints(stage))

    def loads_model(self, stage: str) -> bool:
        return self.section.grounding.needs_model and stage in ("catalogue", "rerank", "grade")

    def models(self, stage: str) -> dict[str, str]:
        grounding = self.section.grounding
        if not grounding.needs_model or stage not in (
            "catalogue",
            "explore",
            "rerank",
            "generate",
            "generate_eval",
            "grade",
        ):
            return {}
        return {"recommend.grounding.embedder": grounding.embedder or ""}

    def named_files(self) -> dict[str, str]:
        files = {
            "recommend.catalogue": self.section.catalogue,
            "recommend.grounding.vectors": self.section.grounding.vectors,
        }
        if self.section.explore and self.section.explore.source:
            form, file = self.section.explore.source
            files[f"recommend.explore.{form}"] = file
        return {key: file for key, file in files.items() if file}

    def prompt_files(self) -> list[str]:
        return [self.section.catalogue] if self.section.catalogue else []
