"""The section of benchmark suites, which lm-evaluation-harness runs on checkpoints."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter, model_validator

from workflow_scripts.config.sections.base import Dtype, Name, Section


class Suite(Section):
    """A task or a group of tasks of lm-evaluation-harness. A text stands for `{task: text}`."""

    task: str  # a name of `lm_eval ls tasks`, or a local .yaml file in its format
    name: Name = ""  # in file names and tables; by default the task's, or that of the file without .yaml
    shots: NonNegativeInt | None = None  # worked examples in the prompt; null: as many as the task says
    limit: PositiveInt | None = None  # use only the first so many questions of each task
    chat: bool = False  # ask by the tokenizer's chat template, with worked examples as turns
    system: str | None = None  # the system message
    generation: dict[str, Any] = Field(default_factory=dict)  # in place of the task's, such as {max_gen_toks: 2048}
    runs_programs: bool = False  # allow tasks that run the programs of a model, without any protection

    @model_validator(mode="before")
    @classmethod
    def from_text(cls, value: Any) -> Any:
        values = {"task": value} if isinstance(value, str) else value
        if isinstance(values, dict) and isinstance(values.get("task"), str) and not values.get("name"):
            name = Path(values["task"]).stem if values["task"].endswith(".yaml") else values["task"]
            values = values | {"name": TypeAdapter(Name).validate_python(name)}
        return values

    @property
    def file(self) -> str | None:
        """The local file of the task, if it is one."""
        return self.task if self.task.endswith(".yaml") else None


class Evaluate(Section):
    """Benchmark suites that run on each evaluated checkpoint, and how the checkpoint is loaded for them."""

    ENVIRONMENTS: ClassVar = {"transformers": "lm-eval", "vllm": "lm-eval-vllm"}  # envs/<name>.yaml by backend
    PACKAGES: ClassVar = {
        "transformers": ("lm_eval", "torch", "transformers", "accelerate"),
        "vllm": ("lm_eval", "vllm"),
    }

    suites: list[Suite] = Field(default_factory=list)  # tasks of lm-evaluation-harness, by name or as sections
    backend: Literal["transformers", "vllm"] = "transformers"  # what answers
    batch_size: PositiveInt = 16  # sequences per batch of the transformers backend
    dtype: Dtype = "float32"  # of the arithmetic
    max_length: PositiveInt | None = None  # tokens of question and answer; null: as long as the model's context
    arguments: dict[str, Any] = Field(default_factory=dict)  # further ones of lm-eval's model, such as {seed: 1}
    gpus: NonNegativeInt = 1  # per suite, on machines that have any; the model is split over several
    threads: PositiveInt = 1  # CPU threads per suite

    @model_validator(mode="after")
    def has_different_names(self):
        names = [suite.name for suite in self.suites]
        for suite in self.suites:
            if names.count(suite.name) > 1:
                raise ValueError(f"two suites are named {suite.name}; give one of them another `name`")
        return self

    @property
    def environment(self) -> str:
        """The name of the Python environment that the suites run in."""
        return self.ENVIRONMENTS[self.backend]

    @property
    def packages(self) -> tuple[str, ...]:
        """The Python packages, by the names of their imports, that the suites need."""
        return self.PACKAGES[self.backend]

    def suite(self, name: str) -> Suite:
        """Return the suite of this name."""
        return next(suite for suite in self.suites if suite.name == name)
