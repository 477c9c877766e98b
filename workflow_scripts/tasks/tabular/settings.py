"""The config section `tabular`. Keys have the names of the original's settings (xueqingpeng/SynFed)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from workflow_scripts.config.sections import ColdStartTrain, Name, Section, Share, exactly_one
from workflow_scripts.config.task_section import TaskSection

if TYPE_CHECKING:
    from workflow_scripts.config.load import Config


class Table(Section):
    """A data set: CSV files with a header, or one that scikit-learn ships. See `inference.py` for types of columns."""

    file: str | None = None  # all rows in one file, which is split into train and test
    train: str | None = None  # or two files that are split already
    test: str | None = None
    sklearn: Literal["iris", "wine", "breast_cancer", "diabetes"] | None = None  # or a data set of scikit-learn
    columns: list[str] | None = None  # the features that are used; default: all
    target: str | None = None  # default: the one in the YAML file beside the table, else the last column

    @model_validator(mode="after")
    def has_one_source(self):
        exactly_one(file=self.file, train=self.train, sklearn=self.sklearn)
        if bool(self.train) != bool(self.test):
            raise ValueError("`train` and `test` belong together; a single `file` is split by the workflow")
        return self


class Merge(Section):
    """How a round's task model is merged with that of the round before: before + weight × (trained - before)."""

    method: Literal["linear", "dare_linear"] = "linear"  # dare_linear: merge a random part of the difference, scaled up
    weight: Share = 0.5
    density: Annotated[float, Field(gt=0, le=1)] = 0.5  # dare_linear: the share of the difference that is kept


class Settings(TaskSection):
    """The tables, and how their rows are made and scored. The original's num_repeat is generate.auto.samples."""

    makes_pairs: ClassVar[bool] = True

    dataset: Name  # the data set that rows are written for, one of `datasets`
    datasets: dict[Name, Table]  # the others teach the generator how rows are written
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.25  # share of a `file`'s rows that become test rows
    examples: PositiveInt | None = None  # worked examples of the cold start; default: one for each row
    own_share: Share = 0.0  # share of the examples from the data set itself; half of its rows then teach
    num_clusters: PositiveInt = 10  # anchors that rows are scored by
    anchors: Literal["train", "test"] = "train"  # where anchors come from; as test rows they are left out of evaluation
    shots: PositiveInt = 4  # examples in a scoring prompt, beside the row that is scored
    task_rows: PositiveInt | None = None  # examples for the first task model, drawn again; default: each real row once
    clients: PositiveInt = 1  # that share the data of the task model
    alpha: PositiveFloat = 0.5  # of the Dirichlet distribution by which each label is shared out among clients
    copies: Literal["drop", "keep"] = "drop"  # drop: duplicates of training rows neither teach nor win
    merge: Merge | None = None  # null: a round's task model is used as it was trained
    train: ColdStartTrain = ColdStartTrain()  # of the task model, which scores rows
    pairs: PositiveInt = 1000  # preference pairs of a round, at most

    @model_validator(mode="after")
    def is_possible(self):
        if self.dataset not in self.datasets:
            raise ValueError(f"dataset: {self.dataset!r} is not one of `datasets`: {', '.join(self.datasets)}")
        if self.own_share and not self.examples and len(self.datasets) > 1:
            raise ValueError(f"own_share: {self.own_share} is a share of `examples`; give their number too")
        return self

    def most_units(self, cfg: "Config", prompts: int | None) -> int:
        return self.pairs

    @classmethod
    def complete(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the config's values with the files that the rule gen_synsft makes as prompts and cold start.

        Files that the config names stay. Without a section `cold_start`, there is none.
        """
        section = values.get("tabular")
        prompts = values.get("prompts") or {}
        cold_start = values.get("cold_start") or {}
        if not all(isinstance(value, dict) for value in (section, prompts, cold_start)):
            return values  # these sections' own checks tell what is wrong

        folder = examples_folder(f"runs/{values.get('name')}", section.get("dataset"))  # type: ignore[union-attr]
        completed = values | {"prompts": dict(prompts)}
        for split in ("train", "eval"):
            completed["prompts"][split] = _with_file(prompts.get(split), f"{folder}/{split}.jsonl")
        if cold_start:
            completed["cold_start"] = _with_file(cold_start, f"{folder}/alpaca_train.json")

        return completed

    def faults(self, cfg: "Config") -> Iterator[str]:
        if cfg.generate.trigger:
            yield "generate.trigger: task 'tabular' asks in one way only; set it to null"
        if cfg.data.data_filter != "none":
            yield (
                f"data.data_filter {cfg.data.data_filter}: preference pairs need their rejected answers too; use none"
            )


def examples_folder(run_folder: str, dataset: str | None) -> str:
    """Return the folder of the generator's cold start and prompts."""
    return f"{run_folder}/syn_datasets/sft_syn_{dataset}"


def _with_file(section: Any, file: str) -> Any:
    """Return a section of the config with this file, unless it names another source."""
    section = section or {}
    if not isinstance(section, dict) or section.get("count"):
        return section
    return {"file": file} | section
