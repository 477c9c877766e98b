"""Inputs, parameters and products that the task `tabular` adds to the rules, and the files of its own stages."""

import os
import re
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

    @property
    def tables(self) -> list[str]:
        """The data sets that rows are written for."""
        return self.section.tables

    # ------------------------------------------------------------ what general stages need

    def files(self, stage: str) -> dict[str, str]:
        files: dict[str, str] = {}
        for table in self.tables:
            suffix = f".{table}" if len(self.tables) > 1 else ""
            files |= {f"{name}{suffix}": path for name, path in self._files_of(stage, table).items()}
        return files

    def _files_of(self, stage: str, table: str) -> dict[str, str]:
        """Return the further input files of a stage for one of the data sets that rows are written for."""
        if stage == "grade":
            return {"schema": self.schema(table)}

        if stage == "script":
            return {"schema": self.schema(table), "train": self.real_rows(table)[0]}

        if stage == "construct_data":
            files = {"scores": self.scores("{n}", table), "prompts": self.anchor_prompts(table)}
            if self.section.min_signal:
                files |= {f"signal_{fold}": self.task_metrics("{n}", fold, table) for fold in self.scoring_folds}
            return files

        if stage == "evaluate":
            train, test = self.real_rows(table)
            files = {"schema": self.schema(table), "train": train, "test": test}
            if self.section.anchors == "test":
                files["anchors"] = self.anchors(table)
            return files

        return {}

    def settings(self, stage: str) -> dict[str, Any]:
        if stage == "construct_data":
            return settings_of(self.section, include={"pairs", "min_signal"})
        if stage == "evaluate":
            return settings_of(self.section, include={"copies"}) | {"seed": self.cfg.seed}
        return {}

    def training(self, stage: str) -> Train | None:
        return self.section.train if stage == "train_task" else None

    def products(self, n: int) -> list[str]:
        products = []
        for table in self.tables:
            products += [self.preferences(k, table) for k in range(1, n + 1)]
            products += [self.plot(k, table) for k in self.run.evaluated_rounds(n)]
            products += self.all_task_metrics(n, table)
        return products

    def targets(self, n: int) -> dict[str, list[str]]:
        files: dict[str, list[str]] = {} if n else {"examples": self.prompts}

        for table in self.tables:
            of_table = {"anchors": [self.anchors(table)]}
            if n:
                of_table = {
                    "raw": [self.raw(n, table)],
                    "csv": [self.synthetic(n, table)],
                    "score": [self.scores(n, table)],
                    "dpo": [self.preferences(n, table)],
                }
            of_table["sft_fed"] = self.all_task_data(n, table)
            for stage, paths in of_table.items():
                files.setdefault(stage, []).extend(paths)

        return files

    def named_files(self) -> dict[str, str]:
        named = {}
        for name, table in self.section.datasets.items():
            for key, file in _csv_files(table).items():
                named[f"tabular.datasets.{name}.{key}"] = file
        return named

    # ------------------------------------------------------------ tables

    def sources(self, table: str) -> list[str]:
        """The CSV files of a data set, and the YAML files beside them."""
        files = list(_csv_files(self.section.datasets[table]).values())
        sidecars = [str(sidecar_of(file)) for file in files]
        return [*files, *filter(os.path.exists, sidecars)]

    def folder(self, table: str) -> str:
        """The folder of a data set."""
        return f"{self.run.folder}/datasets/{table}"

    @property
    def all_folders(self) -> list[str]:
        """The folders of all data sets."""
        return [self.folder(table) for table in self.section.datasets]

    @property
    def with_val(self) -> list[str]:
        """The data sets that have a file of held-out rows."""
        return [name for name, table in self.section.datasets.items() if table.val]

    def schema(self, table: str) -> str:
        """The schema of a data set."""
        return f"{self.folder(table)}/schema.json"

    def real_rows(self, table: str) -> list[str]:
        """The train rows and the test rows of a data set."""
        return [f"{self.folder(table)}/{split}.csv" for split in ("train", "test")]

    def val_rows(self, table: str) -> list[str]:
        """The held-out rows of a data set, if it has a file of them."""
        return [f"{self.folder(table)}/val.csv"] if table in self.with_val else []

    # ------------------------------------------------------------ cold start, prompts and anchors

    @property
    def examples(self) -> str:
        """The folder of the generator's cold start and prompts."""
        return examples_folder(self.run.folder, self.tables)

    @property
    def prompts(self) -> list[str]:
        """The prompts of the rounds and of evaluation, before they are frozen."""
        return [f"{self.examples}/{split}.jsonl" for split in ("train", "eval")]

    def anchors(self, table: str) -> str:
        """The anchors that rows are scored by."""
        return f"{self.run.folder}/score_anchors/{table}_anchors.csv"

    def anchor_prompts(self, table: str) -> str:
        """The questions about the anchors that task models are asked."""
        return f"{self.run.folder}/score_anchors/{table}_prompts.json"

    # ------------------------------------------------------------ the task models' data

    def task_folder(self, n: int | str) -> str:
        """The folder of the task models' data in round n: real rows in round 0, synthetic ones later."""
        tag = "original_0" if str(n) == "0" else f"r{n}"
        return f"{self.run.folder}/syned_datasets/{tag}_sft_fed"

    def folds_of(self, n: int | str) -> list[str]:
        """The folds that task models of a round are trained for."""
        return ["all"] if str(n) == "0" else list(self.folds)

    def task_data(self, n: int | str, fold: str, table: str) -> list[str]:
        """The data that the task models of a round and fold are trained on, by client."""
        stem = f"{self.task_folder(n)}/{table}"
        if self.section.clients == 1:
            return [f"{stem}_fold_{fold}.jsonl"]
        split = "train" if str(n) == "0" else f"train_{fold}"
        return [f"{stem}_client_{client}.{split}.jsonl" for client in range(self.section.clients)]

    def task_file(self, wildcards: Any) -> str:
        """The data that a task model learns from, by the wildcards n, fold, own and part (such as _client_2)."""
        client = int(wildcards.part.removeprefix("_client_") or 0)
        return self.task_data(wildcards.n, wildcards.fold, self.table_of(wildcards.own))[client]

    @property
    def of_clients(self) -> dict[str, Any]:
        """The settings that the data of task models depends on in all rounds, as options of the stage gen_sftfed."""
        section = self.section
        options: dict[str, Any] = {"shots": section.shots, "held_out": section.held_out or None}
        if self.is_federated:
            options |= {"clients": section.clients, "split_method": section.split_method, "alpha": section.alpha}
        return options | {"shares_seed": self.cfg.seed}

    def all_task_data(self, n: int | str, table: str) -> list[str]:
        """The data that the task models of a round are trained on, all folds and clients."""
        folds = ["all"] if str(n) == "0" else self.folds
        return [path for fold in folds for path in self.task_data(n, fold, table)]

    def checks(self, split: str, table: str) -> list[str]:
        """Questions about real rows that task models are measured by: test rows, or held-out ones (val)."""
        if split == "val" and not self.section.has_held_out:
            return []
        clients = 1 if self.section.split_method == "none" else self.section.clients
        return [f"{self.task_folder(0)}/{table}_client_{client}.{split}.jsonl" for client in range(clients)]

    def all_checks(self, table: str) -> list[str]:
        """All questions about real rows that task models are measured by."""
        return [path for split in ("test", "val") for path in self.checks(split, table)]

    # ------------------------------------------------------------ the task models

    def own(self, table: str) -> str:
        """The part of a name that tells the task models of several data sets apart (wildcard `own`)."""
        return f"{table}_" if len(self.tables) > 1 else ""

    def _own_part(self, table: str) -> str:
        """The same; a wildcard stays as it is."""
        return table if table == "{own}" else self.own(table)

    def table_of(self, own: str) -> str:
        """The data set that such a part of a name belongs to."""
        return own.removesuffix("_") or self.tables[0]

    @property
    def own_pattern(self) -> str:
        """The pattern of the wildcard `own`."""
        names = {self.own(table) for table in self.tables} | {self.owners(table) for table in self.tables}
        return "|".join(re.escape(name) or "(?:)" for name in sorted(names, reverse=True))

    def owners(self, table: str) -> str:
        """The same for the models that are merged over clients, which all tables may share."""
        return "" if self.section.shared_task_model else self.own(table)

    @property
    def is_federated(self) -> bool:
        """True if several clients train task models that are merged."""
        return self.section.clients > 1 or self.section.shared_task_model

    @property
    def scoring_folds(self) -> tuple[str, ...]:
        """The folds whose task models score rows. One that exists already scores all rows."""
        return self.folds[:1] if self.section.task_model else self.folds

    @property
    def existing_task_model(self) -> str:
        """The task model that the config names."""
        return f"{self.run.folder}/checkpoints/task_model/checkpoint.json"

    def task_rows(self, name: str) -> str:
        """The training rows of a task model, by its name, such as r1_0 or r1_0_client_2."""
        return f"{self.run.folder}/data/task_{name}.pkl"

    def task_checkpoint(self, name: str) -> str:
        """A task model as it was trained, by its name, such as r1_0 or r1_0_t1_client_2."""
        return f"{self.run.folder}/checkpoints/task_{name}/checkpoint.json"

    def client_models(self, n: int | str, fold: str, t: int | str, table: str) -> list[str]:
        """The clients' task models of a communication round."""
        name = f"{self.own(table)}r{n}_{fold}_t{t}"
        return [self.task_checkpoint(f"{name}_client_{client}") for client in range(self.section.clients)]

    def merged_clients(self, n: int | str, fold: str, t: int | str, own: str) -> list[str]:
        """The clients' task models that are merged in a communication round."""
        tables = self.tables if self.section.shared_task_model else [self.table_of(own)]
        return [path for table in tables for path in self.client_models(n, fold, t, table)]

    def last_client_models(self, n: int | str, fold: str, table: str) -> list[str]:
        """The clients' task models of the last communication round, if there are several clients."""
        return self.client_models(n, fold, self.section.fed_rounds, table) if self.is_federated else []

    def fed_start(self, n: int | str, fold: str, t: int | str, table: str) -> str:
        """The model that the clients start from in a communication round: the merged model of the one before."""
        if int(t) == 1:
            return self.task_start(n, fold, table)
        return self.task_checkpoint(f"{self.owners(table)}r{n}_{fold}_t{int(t) - 1}")

    def trained_task_model(self, n: int | str, fold: str, table: str) -> str:
        """The task model of a round and fold as it was trained, over all clients."""
        last = f"_t{self.section.fed_rounds}" if self.is_federated else ""
        return self.task_checkpoint(f"{self.owners(table)}r{n}_{fold}{last}")

    def merged_task_model(self, n: int | str, fold: str, own: str) -> str:
        """The task model of a round and fold, merged with that of the round before."""
        return f"{self.run.folder}/checkpoints/merged_{own}r{n}_{fold}/checkpoint.json"

    def task_model(self, n: int | str, fold: str, table: str) -> str:
        """The task model of round n that scores the rows of a fold. That of round 0 knows real rows only."""
        if self.section.task_model:
            return self.existing_task_model
        if str(n) == "0":
            return self.trained_task_model(0, "all", table)
        if self.section.merge:
            return self.merged_task_model(n, fold, self.owners(table))
        return self.trained_task_model(n, fold, table)

    def task_start(self, n: int | str, fold: str, table: str) -> str:
        """The model that the task models of a round and fold start from: that of the round before."""
        return self.task_model(int(n) - 1, fold, table) if int(n) else self.run.initial_model

    def task_metrics(self, n: int | str, fold: str, table: str) -> str:
        """The metrics of the task model of a round and fold on real rows."""
        return f"{self.run.folder}/evaluation/task_{self._own_part(table)}r{n}_{fold}.json"

    def communication_round(self, wildcards: Any) -> int:
        """The communication round of a task model, by the wildcard part, such as _t1_client_2; 0 without clients."""
        return int(wildcards.part.split("_")[1].removeprefix("t")) if wildcards.part else 0

    def task_beginning(self, wildcards: Any) -> str:
        """The model that a task model's training starts from, by the wildcards n, fold, own and part."""
        table = self.table_of(wildcards.own)
        if not wildcards.part:
            return self.task_start(wildcards.n, wildcards.fold, table)
        return self.fed_start(wildcards.n, wildcards.fold, self.communication_round(wildcards), table)

    def rows_of_part(self, wildcards: Any) -> str:
        """The training rows of a task model, by the wildcards n, fold, own and part."""
        client = wildcards.part[wildcards.part.find("_client") :] if wildcards.part else ""
        return self.task_rows(f"{wildcards.own}r{wildcards.n}_{wildcards.fold}{client}")

    def task_metrics_of_round(self, n: int | str, table: str) -> list[str]:
        """The same for all folds of a round, if there are clients to compare or held-out rows."""
        if not (self.is_federated or self.section.has_held_out):
            return []
        folds = self.folds_of(n)
        if self.section.task_model:  # it is the same in all rounds, and scores from round 1 on
            folds = list(self.scoring_folds) if int(n) else []
        return [self.task_metrics(n, fold, table) for fold in folds]

    def all_task_metrics(self, n: int, table: str) -> list[str]:
        """The same for all rounds up to n."""
        return [path for k in range(n + 1) for path in self.task_metrics_of_round(k, table)]

    # ------------------------------------------------------------ a round

    def raw(self, n: int | str, table: str) -> str:
        """The graded answers of round n with what they are scored by."""
        return f"{self.run.folder}/r{n}_raw/{table}.raw.jsonl"

    def synthetic(self, n: int | str, table: str) -> str:
        """The synthetic rows of round n."""
        return f"{self.run.folder}/r{n}_csv/{table}.train.csv"

    def scores(self, n: int | str, table: str) -> str:
        """The scores of round n's answers."""
        return f"{self.run.folder}/r{n}_score/{table}.score.jsonl"

    def preferences(self, n: int | str, table: str) -> str:
        """The preferences of round n as text, for other trainers."""
        return f"{self.run.folder}/r{n}_dpo/{table}.pref.jsonl"

    def preference_dataset(self, n: int | str, table: str) -> str:
        """The same as a folder of `datasets`."""
        return f"{self.run.folder}/r{n}_dpo/{table}"

    def plot(self, n: int | str, table: str) -> str:
        """The plot of the metrics of checkpoint n."""
        return f"{self.run.folder}/report/table_{self._own_part(table)}r{n}.svg"


def _csv_files(table: Table) -> dict[str, str]:
    """Return the CSV files of a data set by their key in the config."""
    files = {"file": table.file, "train": table.train, "test": table.test, "val": table.val}
    return {key: file for key, file in files.items() if file}
