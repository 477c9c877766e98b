"""What the workflow's rules ask of the task `tabular`, and where the files of its own stages lie."""

import os
from collections.abc import Iterable
from typing import Any

from workflow_scripts.config.sections import Train, settings_of
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.tabular.inference import sidecar_of
from workflow_scripts.tasks.tabular.settings import Settings, Table, examples_folder


class Wing(defaults.Wing):
    """Files and settings of the task. Folders have the names of the original system."""

    folds = ("0", "1")  # rows of one fold are scored by the task model that was trained on those of the other

    @property
    def section(self) -> Settings:
        return self.cfg.task_section  # type: ignore[return-value]

    # ------------------------------------------------------------ what general stages need

    def files(self, stage: str) -> dict[str, str]:
        if stage == "grade":
            return {"schema": self.schema}
        if stage == "construct_data":
            return {"scores": self.scores("{n}")}
        if stage == "evaluate":
            train, test = self.real_rows()
            files = {"schema": self.schema, "train": train, "test": test}
            return files | ({"anchors": self.anchors} if self.section.anchors == "test" else {})
        return {}

    def settings(self, stage: str) -> dict[str, Any]:
        if stage == "construct_data":
            return settings_of(self.section, include={"pairs"})
        if stage == "evaluate":
            return settings_of(self.section, include={"copies"}) | {"seed": self.cfg.seed}
        return {}

    def training(self, stage: str) -> Train | None:
        return self.section.train if stage == "train_task" else None

    def products(self, n: int) -> list[str]:
        pairs = [self.preferences(k) for k in range(1, n + 1)]
        plots = [self.plot(k) for k in self.run.evaluated_rounds(n)]
        return [*pairs, *plots]

    def targets(self, n: int) -> dict[str, list[str]]:
        if n == 0:
            return {"anchors": [self.anchors]}

        stages = {"raw": self.raw(n), "csv": self.synthetic(n), "score": self.scores(n), "dpo": self.preferences(n)}
        return {stage: [path] for stage, path in stages.items()}

    def named_files(self) -> dict[str, str]:
        named = {}
        for name, table in self.section.datasets.items():
            for key, file in _csv_files(table).items():
                named[f"tabular.datasets.{name}.{key}"] = file
        return named

    # ------------------------------------------------------------ tables

    def sources(self, dataset: str) -> list[str]:
        """The CSV files of a data set, and the YAML files beside them."""
        files = list(_csv_files(self.section.datasets[dataset]).values())
        sidecars = [str(sidecar_of(file)) for file in files]
        return [*files, *filter(os.path.exists, sidecars)]

    def table(self, dataset: str | None = None) -> str:
        """The folder of a data set; by default of the one that rows are written for."""
        return f"{self.run.folder}/datasets/{dataset or self.section.dataset}"

    @property
    def all_tables(self) -> list[str]:
        """The folders of all data sets."""
        return [self.table(dataset) for dataset in self.section.datasets]

    @property
    def schema(self) -> str:
        """The schema of the data set that rows are written for."""
        return f"{self.table()}/schema.json"

    def real_rows(self, dataset: str | None = None) -> list[str]:
        """The train rows and the test rows of a data set; by default of the one that rows are written for."""
        return [f"{self.table(dataset)}/{split}.csv" for split in ("train", "test")]

    # ------------------------------------------------------------ cold start, prompts and anchors

    @property
    def examples(self) -> str:
        """The folder of the generator's cold start and prompts."""
        return examples_folder(self.run.folder, self.section.dataset)

    @property
    def prompts(self) -> list[str]:
        """The prompts of the rounds and of evaluation, before they are frozen."""
        return [f"{self.examples}/{split}.jsonl" for split in ("train", "eval")]

    @property
    def anchors(self) -> str:
        """The anchors that rows are scored by."""
        return f"{self.run.folder}/score_anchors/{self.section.dataset}_anchors.csv"

    @property
    def anchor_prompts(self) -> str:
        """What task models are asked about the anchors."""
        return f"{self.run.folder}/score_anchors/{self.section.dataset}_prompts.json"

    # ------------------------------------------------------------ the task model

    def task_folder(self, n: int | str) -> str:
        """The folder of the task model's data in round n: real rows in round 0, synthetic ones later."""
        tag = "original_0" if str(n) == "0" else f"r{n}"
        return f"{self.run.folder}/syned_datasets/{tag}_sft_fed"

    def task_data(self, n: int | str, fold: str) -> str:
        """What the task model of a round and fold is trained on."""
        return f"{self.task_folder(n)}/{self.section.dataset}_fold_{fold}.jsonl"

    def client_data(self, n: int | str, splits: Iterable[str]) -> list[str]:
        """The parts of the task model's data by client."""
        stem = f"{self.task_folder(n)}/{self.section.dataset}_client"
        return [f"{stem}_{client}.{split}.jsonl" for split in splits for client in range(self.section.clients)]

    def task_rows(self, n: int | str, fold: str) -> str:
        """The training rows of the task model of a round and fold."""
        return f"{self.run.folder}/data/task_r{n}_{fold}.pkl"

    def trained_task_model(self, n: int | str, fold: str) -> str:
        """The task model of a round and fold as it was trained."""
        return f"{self.run.folder}/checkpoints/task_r{n}_{fold}/checkpoint.json"

    def merged_task_model(self, n: int | str, fold: str) -> str:
        """The task model of a round and fold, merged with that of the round before."""
        return f"{self.run.folder}/checkpoints/merged_r{n}_{fold}/checkpoint.json"

    def task_model(self, n: int | str, fold: str) -> str:
        """The task model of round n that scores the rows of a fold. That of round 0 knows real rows only."""
        if str(n) == "0":
            return self.trained_task_model(0, "all")
        return self.merged_task_model(n, fold) if self.section.merge else self.trained_task_model(n, fold)

    def task_start(self, n: int | str, fold: str) -> str:
        """What the task model of a round and fold starts from: that of the round before."""
        return self.task_model(int(n) - 1, fold) if int(n) else self.run.initial_model

    # ------------------------------------------------------------ a round

    def raw(self, n: int | str) -> str:
        """The graded answers of round n with what they are scored by."""
        return f"{self.run.folder}/r{n}_raw/{self.section.dataset}.raw.jsonl"

    def synthetic(self, n: int | str) -> str:
        """The synthetic rows of round n."""
        return f"{self.run.folder}/r{n}_csv/{self.section.dataset}.train.csv"

    def scores(self, n: int | str) -> str:
        """The scores of round n's answers."""
        return f"{self.run.folder}/r{n}_score/{self.section.dataset}.score.jsonl"

    def preferences(self, n: int | str) -> str:
        """The preferences of round n as text, for other trainers."""
        return f"{self.run.folder}/r{n}_dpo/{self.section.dataset}.pref.jsonl"

    def preference_dataset(self, n: int | str) -> str:
        """The same as a folder of `datasets`."""
        return f"{self.run.folder}/r{n}_dpo/{self.section.dataset}"

    def plot(self, n: int | str) -> str:
        """The plot of the metrics of checkpoint n."""
        return f"{self.run.folder}/report/table_r{n}.svg"


def _csv_files(table: Table) -> dict[str, str]:
    """Return the CSV files of a data set by their key in the config."""
    files = {"file": table.file, "train": table.train, "test": table.test}
    return {key: file for key, file in files.items() if file}
