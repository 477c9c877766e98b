"""The config's section `tabular`, with the names of the original's settings (xueqingpeng/SynFed)."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from workflow_scripts.config.sections import ColdStartTrain, Name, Section, Share, either


class Table(Section):
    """A data set: CSV files with a header (types: a YAML file beside them, see core/schemas.py), or a shipped one."""

    file: str | None = None  # all rows, split here; or
    train: str | None = None  # split already, with test
    test: str | None = None
    sklearn: Literal["iris", "wine", "breast_cancer", "diabetes"] | None = None  # scikit-learn's
    columns: list[str] | None = None  # of the features, these alone
    target: str | None = None  # the last column by default

    @model_validator(mode="after")
    def one_source(self):
        either(file=self.file, train=self.train, sklearn=self.sklearn)
        if bool(self.train) != bool(self.test):
            raise ValueError("`train` and `test` belong together; `file` is split here")
        return self


class Merge(Section):
    """The reward model of a round is merged with that of the round before: before + weight × (trained - before)."""

    method: Literal["linear", "dare_linear"] = "linear"  # dare_linear: of the difference, a random part, scaled up
    weight: Share = 0.5
    density: Annotated[float, Field(gt=0, le=1)] = 0.5  # dare_linear: the part that stays


class Tabular(Section):
    """Task tabular: the data set that rows are written for, and how they are rewarded. num_repeat is
    generate.auto.samples."""

    dataset: Name  # one of datasets; the others teach the generator how rows are written
    datasets: dict[Name, Table]
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.25  # of a `file`'s rows
    examples: PositiveInt | None = None  # worked examples of the cold start; one for each row by default
    own_share: Share = 0.0  # of them of the data set's own rows, half of which then teach: for a model without language
    num_clusters: PositiveInt = 10  # anchors that a row is scored by
    anchors: Literal["train", "test"] = "train"  # test: anchors are left out of the report's test rows
    shots: PositiveInt = 4  # examples in a scoring prompt, beside the row that is scored
    task_rows: PositiveInt | None = None  # real rows that the first task model learns from, drawn again; each once
    clients: PositiveInt = 1  # that share the task data
    alpha: PositiveFloat = 0.5  # of the Dirichlet distribution of each label over clients
    copies: Literal["drop", "keep"] = "drop"  # drop: a copy of a training row is no good answer
    merge: Merge | None = None
    train: ColdStartTrain = ColdStartTrain()  # of the task model, which is the reward

    @model_validator(mode="after")
    def known_dataset(self):
        if self.dataset not in self.datasets:
            raise ValueError(f"dataset: {self.dataset!r} is none of datasets: {', '.join(self.datasets)}")
        if self.own_share and not self.examples and len(self.datasets) > 1:
            raise ValueError(f"own_share: {self.own_share} is a share of `examples`: give their number too")
        return self
