"""Describe all jobs of a run as JSON: what is done, what is pending and why, and which jobs have started.

`workflow_scripts.status` and `workflow_scripts.plan` start a dry run with the name of a file in ROUNDHOUSE_SURVEY, and
the dry run writes the description there. A dry run needs no lock, so this works while another Snakemake makes the run.
"""

import atexit
import os
import re
from typing import Any

from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import Config
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.running.manifest import manifest_of
from workflow_scripts.updates import prompts_in, train_prompts
from workflow_scripts.workflow import changes
from workflow_scripts.workflow.brake import Brake, in_order, seconds_of, will_run

VARIABLE = "ROUNDHOUSE_SURVEY"


def is_wanted() -> bool:
    """Return whether this dry run is asked for the description."""
    return VARIABLE in os.environ


def watch_dry_run(workflow: Any, cfg: Config, run: Run, brake: Brake) -> None:
    """Arrange that a dry run ends with the description, if it is asked for one."""

    def at_end() -> None:
        if workflow.dryrun and getattr(workflow, "_dag", None) is not None:
            write_json(os.environ[VARIABLE], describe(workflow, cfg, run, brake))

    atexit.register(at_end)


def describe(workflow: Any, cfg: Config, run: Run, brake: Brake) -> dict[str, Any]:
    """Return the run and its jobs, producers before consumers."""
    settings = workflow.resource_settings
    jobs = [job for job in in_order(workflow.dag, list(workflow.dag.jobs)) if job.rule.shellcmd]
    numbers = {job: number for number, job in enumerate(jobs)}

    descriptions = [_description(job, numbers, workflow, cfg, brake) for job in jobs]
    for description in descriptions:
        if description["round"] is None:  # it belongs to the last round that it needs, or to the preparations
            of_needs = [descriptions[number]["round"] for number in description["needs"]]
            description["round"] = max(of_needs, default=0)

    return {
        "run": run.folder,
        "task": cfg.task,
        "rounds": cfg.rounds,
        "prompts": _numbers_of_prompts(cfg),
        "samples": {version: getattr(cfg.generate, version).samples for version in cfg.versions},
        "samples_of_sets": {name: cfg.of_set(name).generate.eval.samples for name in cfg.prompts.sets_apart},
        "epochs": cfg.train.epochs,
        "cores": settings.cores,
        "jobs_at_once": settings.nodes,
        "jobs": descriptions,
    }


def note_run(workflow: Any, cfg: Config, run: Run, is_whole: bool) -> None:
    """Note in the run's folder which run it is, with its config and, if whole rounds are made, their stages."""
    write_json(f"{run.folder}/run.json", {"name": cfg.name, "task": cfg.task})
    write_json(f"{run.folder}/config.json", cfg.model_dump(mode="json", exclude_unset=True))
    if is_whole:
        write_json(f"{run.folder}/stages.json", stage_graph(workflow))


def stage_graph(workflow: Any) -> dict[str, Any]:
    """Return the stages of a round, and which takes something from which; `rounds` is how many rounds later.

    Preparations and the cold start are left out, except where they take part in every round.
    """
    jobs = [job for job in in_order(workflow.dag, list(workflow.dag.jobs)) if job.rule.shellcmd]
    places = {
        job: (stage_of(job.rule.name, job.wildcards_dict), round_of(job.wildcards_dict, job.output)) for job in jobs
    }
    edges: dict[tuple[str, str, int], None] = {}
    stages: dict[str, None] = {}

    for job in jobs:
        stage, number = places[job]
        if not number:
            continue
        stages[stage] = None
        for producer in workflow.dag.dependencies[job]:
            earlier, before = places.get(producer, ("", None))
            if before is not None and (before > 0 or earlier in stages):
                edges[earlier, stage, number - before] = None

    known = [edge for edge in edges if edge[0] in stages]
    return {
        "stages": list(stages),
        "edges": [{"from": start, "to": end, "rounds": rounds} for start, end, rounds in known],
    }


def _numbers_of_prompts(cfg: Config) -> dict[str, int | None]:
    """Return the number of prompts of a round and of an evaluation, as far as the config or frozen prompts tell."""
    train = train_prompts(cfg)
    if train is not None and cfg.prompts_per_round:
        train = min(train, cfg.prompts_per_round)
    frozen = manifest_of(Run(cfg).prompts("eval"))
    sources = cfg.prompts.sources("eval").values()
    counts = [prompts_in(source) for source in sources]
    known = sum(filter(None, counts)) if counts and None not in counts else None
    return {"train": train, "eval": read_json(frozen)["rows"] if frozen.exists() else known}


def _description(job: Any, numbers: dict[Any, int], workflow: Any, cfg: Config, brake: Brake) -> dict[str, Any]:
    reason = workflow.dag.reason(job)
    is_pending = will_run(reason)
    change = workflow.persistence.params_changed(job) if is_pending else None
    producers = [producer for producer in workflow.dag.dependencies[job] if producer in numbers]

    return {
        "rule": job.rule.name,
        "stage": stage_of(job.rule.name, job.wildcards_dict),
        "round": round_of(job.wildcards_dict, job.output),
        "outputs": [str(path) for path in job.output],
        "log": str(job.log[0]) if job.log else None,
        "threads": job.threads if isinstance(job.threads, int) else 1,
        "gpus": _gpus(job),
        "needs": sorted(numbers[producer] for producer in producers),
        "pending": is_pending,
        "exists": bool(job.output) and all(os.path.exists(path) for path in job.output),
        "inputs": [str(path) for path in job.input] if is_pending else [],
        "changed": _changed(job, change, cfg) if is_pending else [],
        "reasons": changes.reasons(job, reason, change, cfg.task, brake.news) if is_pending else [],
        "started": _started(job, workflow.persistence) if is_pending else None,
        "measured": bool(job.benchmark),
        "seconds": seconds_of(job),
    }


def _changed(job: Any, change: Any, cfg: Config) -> list[str]:
    """Return the keys of the config that changed for a job, and "code" if its code did."""
    if not change:
        return []
    keys = list(changes.differences(job.rule.name, cfg.task, change.only_old, change.only_new))
    return [*keys, "code"] if changes.code_digests(change.only_new) else keys


def stage_of(rule: str, wildcards: dict[str, str]) -> str:
    """Return the name of a job's stage: its rule, with the version or place that it works on."""
    words = [rule]
    for name, value in wildcards.items():
        if name not in ("n", "shard"):
            parts = [part for part in str(value).split("/") if not re.fullmatch(r"r\d+", part)]
            is_of_set = parts[:1] == ["evaluation"]
            words += parts if is_of_set else filter(None, parts[-1:] or [str(value)])
    return " ".join(words)


def round_of(wildcards: dict[str, str], outputs: Any) -> int | None:
    """Return the round that a job belongs to by its wildcards or outputs; None if they tell of none."""
    if "n" in wildcards:
        return int(wildcards["n"])

    for path in map(str, outputs):
        if match := re.search(r"(?:^|/|_)r(\d+)(?:$|/|_|\.)", path):
            return int(match[1])
    return None


def _started(job: Any, persistence: Any) -> float | None:
    """Return when a job was started that is not recorded as finished, in seconds since the epoch; None if never."""
    outputs = [str(path) for path in job.output]
    started = persistence._filter_incomplete_keys(outputs)
    times = [persistence._get_recorded_starttime(path) for path in sorted(started)]
    return max(filter(None, times), default=None)


def _gpus(job: Any) -> int:
    try:
        return int(job.resources.get("gpu", 0))
    except (TypeError, ValueError):
        return 0
