"""The files of a run, known in one place for rules, config, reports and verification.

Names follow the original systems: `results/`, `meta/`, `data/`, `…_logp/`, `checkpoints/`, `evaluation/`. A path may
contain Snakemake wildcards such as {n}: pass them in place of a value, as in `checkpoint("{n}")`.
"""

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from workflow_scripts.config.load import Config
from workflow_scripts.config.sections import OWN_GRADE
from workflow_scripts.core.shards import names_of_shards, round_folder
from workflow_scripts.core.slices import Slicing

VERSIONS = ("auto", "trigger")


def is_learnt_from(path: str) -> bool:
    """Return whether a file of answers is one that a round learns from, and not one of an evaluation."""
    folder = Path(path).parent
    return folder.name in VERSIONS and folder.parent.parent.name != "evaluation"  # an eval set may be called auto


def manifests(paths: Iterable[str]) -> list[str]:
    """Return the manifests beside large outputs.

    They are small, so Snakemake compares them by content, and the large outputs themselves can be `ancient`.
    """
    return [re.sub(r"\.[a-z]+$", ".json", path) for path in paths]


def one_of(rounds: Iterable[int | str]) -> str:
    """Return a regular expression for the numbers of these rounds, or for these names, as a wildcard's constraint."""
    return "|".join(map(str, rounds)) or "never"


def none_of(rounds: Iterable[int]) -> str:
    """Return a regular expression for the numbers of all other rounds."""
    return rf"(?!(?:{one_of(rounds)})(?!\d))\d+"


class Run:
    """The files of one run."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        self.folder = f"runs/{cfg.name}"
        self.tag = cfg.expname or cfg.name

    def shards(self, stage: str) -> list[str]:
        """The shards of a stage (auto, trigger, eval, pool or logp), such as 2_0 and 2_1."""
        return names_of_shards(self.cfg.shards.of(stage))

    # ------------------------------------------------------------ prompts and model

    def prompts(self, split: str) -> str:
        """The frozen prompts of a split: train, pool or eval."""
        return f"{self.folder}/prompts/{split}.parquet"

    @property
    def prompts_to_avoid(self) -> list[str]:
        """The frozen eval prompts, if training rows that exist already are compared with them."""
        return [self.prompts("eval")] if self.cfg.screens_rows else []

    def shard_digest(self, split: str, shard: str = "{shard}") -> str:
        """The digest file of a shard of a split."""
        return f"{self.folder}/prompts/shards/{split}/{shard}.txt"

    def shard_digests(self, split: str) -> list[str]:
        """The digest files of a split's shards, for all numbers of shards that prompts are divided into."""
        counts = self.cfg.shards.of_prompts
        return [self.shard_digest(split, shard) for count in counts for shard in names_of_shards(count)]

    @property
    def slicing(self) -> Slicing | None:
        """The division of the train prompts among rounds; None if each round answers all of them."""
        size = self.cfg.prompts_per_round
        return Slicing(size, self.cfg.seed) if size else None

    def answered_digest(self, n: int | str, shard: str = "{shard}") -> str:
        """The digest file of a shard of the prompts that round n answers."""
        split = f"train/{round_folder(n)}" if self.slicing else "train"
        return self.shard_digest(split, shard)

    def answered_digests(self, n: int | str) -> list[str]:
        """The digest files of the prompts that round n answers, for all numbers of shards of its answers."""
        shards = dict.fromkeys([*self.shards("auto"), *self.shards("trigger")])
        return [self.answered_digest(n, shard) for shard in shards]

    @property
    def initial_model(self) -> str:
        """The model as it came, or as it was made from scratch."""
        return f"{self.folder}/checkpoints/init/checkpoint.json"

    def checkpoint(self, n: int | str) -> str:
        """The checkpoint of round n. Without a cold start, round 0 is the initial model."""
        if str(n) == "0" and not self.cfg.cold_start:
            return self.initial_model
        return f"{self.folder}/checkpoints/r{n}/checkpoint.json"

    @property
    def cold_start_data(self) -> str:
        return f"{self.folder}/data/sft_{self.tag}.pkl"

    # ------------------------------------------------------------ answers

    def entry(self, n: int | str) -> str | None:
        """The section that names the existing files which round n starts from: results, meta, rows, or None."""
        return self.cfg.entries.get(int(n))

    def versions(self, n: int | str) -> list[str]:
        """The versions in which round n has answers."""
        entry = self.entry(n)
        if entry in ("results", "meta"):
            files = getattr(self.cfg, entry)[int(n)]
            return [version for version in VERSIONS if getattr(files, version)]
        return self.configured_versions

    @property
    def configured_versions(self) -> list[str]:
        """The versions in which rounds generate answers."""
        return [version for version in VERSIONS if getattr(self.cfg.generate, version)]

    def answers(self, n: int | str, version: str, shard: str = "{shard}") -> str:
        """The answers of checkpoint n-1, for one shard."""
        return f"{self.folder}/results/r{n}/{version}/{shard}.pkl"

    def all_answers(self, n: int | str) -> list[str]:
        """The answers of round n, in all versions and shards."""
        return [self.answers(n, version, shard) for version in self.versions(n) for shard in self.shards(version)]

    def compared_answers(self, n: int | str) -> list[str]:
        """The answers of round n whose engine is compared with training: none, unless the config asks for it."""
        is_compared = self.cfg.train.compares_engine and not self.cfg.data.source and not self.entry(int(n))
        return self.all_answers(n) if is_compared else []

    def graded(self, n: int | str, version: str) -> list[str]:
        """The graded answers of round n in a version, all shards."""
        return [f"{self.folder}/results/r{n}/{version}/{shard}_matchlog.pkl" for shard in self.shards(version)]

    def eval_answers(self, n: int | str, shard: str = "{shard}") -> str:
        """The answers of checkpoint n to the eval questions, for one shard and place of a set."""
        return f"{self.folder}/evaluation/r{n}{self.place_of_set}/{shard}.pkl"

    @property
    def place_of_set(self) -> str:
        """The wildcard {place_of_set}, or "" in a run without sets that jobs of their own answer.

        Its value is `/NAME` for such a set, and empty for the others.
        """
        return "{place_of_set}" if self.cfg.prompts.sets_apart else ""

    @property
    def places_of_sets(self) -> list[str]:
        """The folders of eval answers below that of their round: "" for sets that share their jobs, else `/NAME`."""
        apart = self.cfg.prompts.sets_apart
        shared = [name for name in self.cfg.prompts.sources("eval") if name not in apart]
        return [*([""] if shared else []), *(f"/{name}" for name in apart)]

    def eval_graded(self, n: int | str) -> list[str]:
        """The graded answers of checkpoint n to the eval questions, all shards."""
        folders = [f"{self.folder}/evaluation/r{n}{place}" for place in self.places_of_sets]
        return [f"{folder}/{shard}_matchlog.pkl" for folder in folders for shard in self.shards("eval")]

    # ------------------------------------------------------------ rewards

    @property
    def own_graded(self) -> str:
        """A shard's answers with the task's own reward; if the reward is composed, its parts are still to be added."""
        return f"{self.folder}/{{place}}/{{shard}}_{'graded' if self.cfg.reward_parts else 'matchlog'}.pkl"

    @property
    def reward_model(self) -> str:
        """The reward model that the run trains."""
        return f"{self.folder}/reward_model/checkpoint.json"

    def reward_values(self, part: str = "{part}") -> str:
        """The values of a part of a composed reward, for one shard of answers."""
        return f"{self.folder}/{{place}}/{{shard}}_reward_{part}.pkl"

    def all_reward_values(self) -> dict[str, str]:
        """The values of the parts of a composed reward that stages of their own compute, by the part's name."""
        parts = self.cfg.reward_parts.items()
        return {name: self.reward_values(name) for name, part in parts if part.reward != OWN_GRADE}

    # ------------------------------------------------------------ data

    def meta(self, n: int | str, version: str) -> str:
        """The graded answers of round n by question."""
        return f"{self.folder}/meta/r{n}_{version}_q2responses_{self.tag}.pkl"

    def metas(self, n: int | str) -> dict[str, str]:
        """The meta files of round n by version."""
        return {version: self.meta(n, version) for version in self.versions(n)}

    @cached_property
    def source_name(self) -> str | None:
        """The name of the file with existing rows, safe for a path."""
        source = self.cfg.data.source
        return re.sub(r"[^\w.-]", "_", Path(source.file).name) if source else None

    def _data_stem(self, n: int | str) -> str:
        if self.source_name:
            return f"{self.folder}/data/{self.source_name}_{self.cfg.data.tag}"
        return f"{self.folder}/data/offline_{self.cfg.data.tag}_r{n}_{self.tag}"

    def data(self, n: int | str) -> str:
        """The data that round n trains on: its own graded answers, or the existing rows."""
        return f"{self._data_stem(n)}.pkl"

    def trained_on(self, n: int) -> dict[str, str]:
        """The data of all trainings up to round n, by a name for each."""
        data = {"cold_start": self.cold_start_data} if self.cfg.cold_start else {}
        if self.source_name:
            return data | ({"rounds": self.data(n)} if n else {})
        return data | {f"round{k}": self.data(k) for k in range(1, n + 1)}

    @property
    def linked_source(self) -> str:
        """The link to the file with existing rows, within the run's folder."""
        return f"{self.folder}/data/{self.source_name}"

    @property
    def rounds_with_logps(self) -> list[int]:
        """The rounds whose rows come with log-probs."""
        return [n for n, rows in self.cfg.rows.items() if rows.logp]

    # ------------------------------------------------------------ log-probs

    def scored_checkpoint(self, n: int | str) -> str:
        """The checkpoint that the log-prob folder with this number was computed under.

        For existing rows the number is that of the scoring checkpoint itself, as in CodeRL's names. Else it is that of
        the round, which is scored under the checkpoint before.
        """
        return self.checkpoint(n) if self.source_name else self.checkpoint(int(n) - 1)

    def logp_folder(self, n: int | str) -> str:
        """The log-probs under the policy that answered, by the number in the folder's name."""
        stem = self._data_stem(n)
        return f"{stem}_scaleonly_r{n}_logp" if self.source_name else f"{stem}_logp"

    def reference_folder(self, n: int | str) -> str:
        """The log-probs of round n's own data under round 0's checkpoint."""
        return f"{self._data_stem(n)}_ref_logp"

    def logps(self, n: int, under: int) -> list[str]:
        """The log-probs of round n's data under the checkpoint `under`, all shards."""
        if self.source_name:
            folder = self.logp_folder(under)
        else:
            folder = self.logp_folder(n) if under == n - 1 else self.reference_folder(n)
        return [f"{folder}/{shard}.pkl" for shard in self.shards("logp")]

    def compared_checkpoints(self, n: int) -> dict[str, int]:
        """The numbers of the checkpoints whose stored log-probs round n's objective needs, by what they are to it."""
        train = self.cfg.train
        compared = {}
        if train.needs_behaviour:
            compared["logp"] = n - 1
        if train.needs_reference:
            compared["ref_logp"] = 0 if train.reference == "round0" else n - 1
        return compared

    def stored_logps(self, n: int) -> list[str]:
        """The log-probs of round n: under the policy that it starts from, and what else its objective needs."""
        compared = {"logp": n - 1} | self.compared_checkpoints(n)
        files = [path for under in compared.values() for path in self.logps(n, under)]
        return list(dict.fromkeys(files))

    def replayed_rounds(self, n: int | str) -> list[int]:
        """The earlier rounds whose rows round n trains on again, the latest first; none unless the config asks for it.

        Rounds before which nothing was sampled here, since their rows came as a file, have no policy to take ratios of.
        """
        replay = self.cfg.data.replay
        if replay is None or self.entry(n) == "rows":
            return []
        earlier = range(int(n) - 1, max(0, int(n) - 1 - replay.rounds), -1)
        return [k for k in earlier if self.entry(k) != "rows"]

    def replayed_data(self, n: int | str) -> list[str]:
        """The data that round n takes rows from to train on them again."""
        return [self.data(k) for k in self.replayed_rounds(n)]

    def replayed_logps(self, n: int | str) -> list[str]:
        """The log-probs of those rows under the policies that sampled them."""
        return [path for k in self.replayed_rounds(n) for path in self.logps(k, k - 1)]

    # ------------------------------------------------------------ evaluation and bookkeeping

    def evaluation(self, n: int | str) -> str:
        """The metrics of checkpoint n."""
        return f"{self.folder}/evaluation/r{n}.json"

    def evaluated_rounds(self, n: int) -> list[int]:
        """The rounds up to n that are evaluated: every `evaluate_every`th, and round n itself."""
        return [k for k in range(n + 1) if k % self.cfg.evaluate_every == 0 or k == n]

    def evaluated_before(self, n: int) -> int:
        """The last round before round n that is evaluated in any case."""
        return (n - 1) // self.cfg.evaluate_every * self.cfg.evaluate_every

    def graded_before(self, n: int | str) -> list[str]:
        """The graded eval answers of the evaluated round before round n; none for round 0."""
        return self.eval_graded(self.evaluated_before(int(n))) if int(n) else []

    def graded_in_round0(self, n: int | str) -> list[str]:
        """The graded eval answers of round 0, for the rounds after it."""
        return self.eval_graded(0) if int(n) else []

    def evaluations(self, last: int) -> list[str]:
        """The metrics of the evaluated checkpoints up to `last`; none if the run has no eval questions."""
        return [self.evaluation(n) for n in self.evaluated_rounds(last)] if self.cfg.evaluates else []

    def suite(self, n: int | str, name: str) -> str:
        """The metrics of checkpoint n on a benchmark suite; beside it, with the suffix .jsonl, lie the answers."""
        return f"{self.folder}/evaluation/suites/r{n}/{name}.json"

    def suites(self, n: int | str) -> list[str]:
        """The metrics of checkpoint n on all benchmark suites."""
        return [self.suite(n, suite.name) for suite in self.cfg.evaluate.suites]

    def judged(self, n: int | str) -> str:
        """The judge's comparison of round n's eval answers with those of the round before."""
        return f"{self.folder}/evaluation/judged/r{n}.jsonl"

    def logp_comparisons(self) -> list[str]:
        """The comparisons of sampled with scored log-probs, for rounds whose answers are sampled and scored here."""
        if self.cfg.data.source or not self.cfg.train.needs_behaviour:
            return []
        rounds = self.evaluated_rounds(self.cfg.rounds)
        return [f"{self.folder}/report/logps_r{n}.json" for n in rounds if n and not self.entry(n)]

    def further_evaluations(self) -> list[str]:
        """The metrics of rounds beyond the config's that exist: they are reported as they are, not made again."""
        numbers = {int(path.stem[1:]): str(path) for path in Path(self.folder).glob("evaluation/r*.json")}
        return [path for n, path in sorted(numbers.items()) if n > self.cfg.rounds]

    def published(self, n: int | str) -> str:
        """The manifest of a published round; beside it lie the folders `model` and `data`."""
        return f"{self.folder}/published/r{n}/publish.json"

    @property
    def page(self) -> str:
        """The page of the run, with its curves, answers and cost."""
        return f"{self.folder}/report/report.html"

    def log(self, name: str) -> str:
        return f"{self.folder}/logs/{name}.log"

    def benchmark(self, name: str) -> str:
        return f"{self.folder}/benchmarks/{name}.tsv"

    def ledger(self, name: str = "") -> str:
        """A folder of finished records, or the folder of all ledgers."""
        return f"{self.folder}/ledger/{name}".rstrip("/")

    def state(self, name: str) -> str:
        """A folder for the saved states of an unfinished training."""
        return f"{self.folder}/state/{name}"
