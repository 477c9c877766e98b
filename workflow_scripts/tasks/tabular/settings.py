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
    test: str | None = None  # a file of test rows, beside `train`
    val: str | None = None  # a third file: its rows are held out from the generator and from the task models
    sklearn: Literal["iris", "wine", "breast_cancer", "diabetes"] | None = None  # or a data set of scikit-learn
    columns: list[str] | None = None  # the features that are used; default: all
    target: str | None = None  # default: the one in the YAML file beside the table, else the last column

    @model_validator(mode="after")
    def has_one_source(self):
        exactly_one(file=self.file, train=self.train, sklearn=self.sklearn)
        if bool(self.train) != bool(self.test):
            raise ValueError("`train` and `test` belong together; a single `file` is split by the workflow")
        if self.val and not self.train:
            raise ValueError("`val` belongs to `train` and `test`; for a single `file` use tabular.held_out")
        return self


class Merge(Section):
    """Settings for merging task models of one origin: before + weight × (mean of their differences to it).

    The mean is weighted by the rows that each model learnt from. `merge_models.py` says what the methods make of the
    differences before that, and names their sources.
    """

    method: Literal["linear", "magnitude_prune", "ties", "dare_linear", "dare_ties"] = "linear"  # see merge_models.py
    weight: Share = 0.5  # of each adapter in the merge
    density: Annotated[float, Field(gt=0, le=1)] = 0.5  # share of each difference that is kept; linear keeps all


FEDAVG = Merge(method="linear", weight=1.0)


class Settings(TaskSection):
    """The tables, and how their rows are made and scored. The original's num_repeat is generate.auto.samples."""

    makes_pairs: ClassVar[bool] = True
    starting: ClassVar[dict[str, Any] | None] = None

    dataset: Name | None = None  # the data set that rows are written for, one of `datasets`
    targets: list[Name] | None = None  # or several such data sets: one generator writes rows of all of them
    datasets: dict[Name, Table]  # the others teach the generator how rows are written
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.25  # share of a `file`'s rows that become test rows
    examples: PositiveInt | None = None  # worked examples of the cold start; default: one for each row
    own_share: Share = 0.0  # share of the examples from the data set itself; half of its rows then teach
    num_clusters: PositiveInt = 10  # anchors that rows are scored by
    anchors: Literal["train", "test"] = "train"  # where anchors come from; as test rows they are left out of evaluation
    shots: PositiveInt = 4  # examples in a scoring prompt, beside the row that is scored
    task_rows: PositiveInt | None = None  # examples for the first task model, drawn again; default: each real row once
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the training rows that no task model learns from
    min_signal: Share = 0.0  # scores count only if task models rank held-out rows by label at least so well
    clients: PositiveInt = 1  # each trains task models on its own rows; their models are merged
    split_method: Literal["none", "iid", "dirichlet"] = "dirichlet"  # how rows are shared out; none: each gets all rows
    alpha: PositiveFloat = 0.5  # of the Dirichlet distribution by which each label is shared out among clients
    fed_rounds: PositiveInt = 1  # communication rounds: the clients train on from the merged model
    fed_merge: Merge = FEDAVG  # how the clients' models are merged; the default is FedAvg
    shared_task_model: bool = False  # merge the clients of all targets into one task model
    task_model: str | None = None  # folder or hub name of a task model that exists; it scores the rows of all rounds
    copies: Literal["drop", "keep"] = "drop"  # drop: duplicates of training rows neither teach nor win
    merge: Merge | None = None  # null: a round's task model is used as it was trained
    train: ColdStartTrain = ColdStartTrain()  # of the task model, which scores rows
    pairs: PositiveInt = 1000  # preference pairs of a round, at most

    @model_validator(mode="after")
    def is_possible(self):
        exactly_one(dataset=self.dataset, targets=self.targets)
        for target in self.tables:
            if target not in self.datasets:
                key = "dataset" if self.dataset else "targets"
                raise ValueError(f"{key}: {target!r} is not one of `datasets`: {', '.join(self.datasets)}")
        if len(set(self.tables)) < len(self.tables) or not self.tables:
            raise ValueError("targets: name at least one data set, and each once")
        if self.min_signal and not self.has_held_out:
            raise ValueError("min_signal: it is measured on held-out rows; give `held_out`, or `val` files")
        if self.task_model and (self.clients > 1 or self.merge or self.shared_task_model):
            raise ValueError(
                "task_model: a task model that exists is not trained; remove `clients`, `merge` and `shared_task_model`"
            )
        if self.shared_task_model and len(self.tables) < 2:
            raise ValueError("shared_task_model: it is shared by several `targets`")
        if self.own_share and not self.examples and len(self.datasets) > 1:
            raise ValueError(f"own_share: {self.own_share} is a share of `examples`; give their number too")
        return self

    def most_units(self, cfg: "Config", prompts: int | None) -> int:
        return self.pairs * len(self.tables)

    @property
    def tables(self) -> list[str]:
        """The data sets that rows are written for."""
        return [self.dataset] if self.dataset else list(self.targets or ())

    @property
    def has_held_out(self) -> bool:
        """True if rows of all targets are held out from their task models."""
        return bool(self.held_out or all(self.datasets[name].val for name in self.tables))

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

        tables = section.get("targets") or [section.get("dataset")]  # type: ignore[union-attr]
        folder = examples_folder(f"runs/{values.get('name')}", tables)
        completed = values | {"prompts": dict(prompts)}
        for split in ("train", "eval"):
            if not _is_several_sets(prompts.get(split)):
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


def examples_folder(run_folder: str, tables: list[str]) -> str:
    """Return the folder of the generator's cold start and prompts."""
    return f"{run_folder}/syn_datasets/sft_syn_{'-'.join(map(str, tables))}"


def _is_several_sets(section: Any) -> bool:
    """Return whether a split of the prompts is a mapping of names to sets."""
    return isinstance(section, dict) and bool(section) and all(isinstance(value, dict) for value in section.values())


def _with_file(section: Any, file: str) -> Any:
    """Return a section of the config with this file, unless it names another source."""
    section = section or {}
    if not isinstance(section, dict) or section.get("count"):
        return section
    return {"file": file} | section
