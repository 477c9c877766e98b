"""The transformers engine beside plain `model.generate` in padded batches: the same prompts, model and stops.

    python -m benchmarks.engines [--checkpoint runs/arithmetic/checkpoints/r0/checkpoint.json]

Both sample eight answers to each question of the default experiment, as its rounds do, in batches of the same size.
The peer takes them in the order of the prompts. The sides take turns, and the results are medians of five. With
--vllm PYTHON, vLLM on the CPU is measured once beside them, for the record.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from benchmarks.common import interleaved, publish, row
from workflow_scripts import engines
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.records import read_records
from workflow_scripts.core.templates import render
from workflow_scripts.core.tokens import encode_prompt
from workflow_scripts.tasks.math.conversation import STOP

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
MAX_TOKENS = 64
BATCH = 128
SAMPLES = 8
SETTINGS = {"threads": 1, "dtype": "float32"}


def contexts_of(tokenizer, prompts: str) -> list[list[int]]:
    """Return the token ids of every question, as often as it is asked."""
    contexts = []
    for prompt in read_records(prompts):
        tokens = encode_prompt(tokenizer, render("deepseek", prompt["question"]))
        contexts += [tokens] * SAMPLES
    return contexts


def with_engine(engine: Any, contexts: list[list[int]]) -> int:
    """Sample by the engine, in the stage's plan: by length, in batches. Return the number of sampled tokens."""
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))
    sampled = 0

    for start in range(0, len(order), BATCH):
        requests = [engines.Request(contexts[i], i, MAX_TOKENS) for i in order[start : start + BATCH]]
        sampled += sum(len(completion.tokens) for completion in engine.generate(requests))

    return sampled


@torch.inference_mode()
def with_generate(model: Any, tokenizer: Any, contexts: list[list[int]]) -> int:
    """Sample by `model.generate`. Return the number of sampled tokens."""
    torch.manual_seed(0)
    pad = tokenizer.eos_token_id
    sampled = 0

    for start in range(0, len(contexts), BATCH):
        batch = tokenizer.pad({"input_ids": contexts[start : start + BATCH]}, padding_side="left", return_tensors="pt")
        output = model.generate(
            **batch,
            do_sample=True,
            top_k=0,
            max_new_tokens=MAX_TOKENS,
            pad_token_id=pad,
            stop_strings=[STOP],
            tokenizer=tokenizer,
        )
        new = output[:, batch["input_ids"].shape[1] :]
        sampled += int((new != pad).sum() + (new == pad).any(1).sum())  # the first end token counts

    return sampled


def rate(work: Callable[..., int], *arguments: Any) -> float:
    """Return how many tokens per second some work samples."""
    started = time.perf_counter()
    return work(*arguments) / (time.perf_counter() - started)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="runs/arithmetic/checkpoints/r0/checkpoint.json", help="the model")
    parser.add_argument("--prompts", default="runs/arithmetic/prompts/train.parquet", help="the questions")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side (default: 5)")
    parser.add_argument("--vllm", help="the Python of vLLM's environment")
    parser.add_argument("--only-vllm", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    name = "vllm" if args.only_vllm else "transformers"
    folder = model_folder(args.checkpoint)
    engine = engines.load(name, model=folder, settings=SETTINGS, sampling=SAMPLING, stop=(STOP,))
    contexts = contexts_of(engine.tokenizer, args.prompts)
    with_engine(engine, contexts[:BATCH])  # warms up

    if args.only_vllm:
        print(json.dumps({"rate": rate(with_engine, engine, contexts), "version": engine.version["vllm"]}))
        return

    ours, peer = interleaved(
        lambda: rate(with_engine, engine, contexts),
        lambda: rate(with_generate, engine.model, engine.tokenizer, contexts),
        args.repeats,
    )
    unit = "sampled tokens/s"
    plain = "model.generate, padded batches"
    rows = [row("generate_vs_padded", ours, peer, unit, plain, transformers.__version__)]

    if args.vllm:
        command = [args.vllm, "-m", "benchmarks.engines", "--only-vllm"]
        command += ["--checkpoint", args.checkpoint, "--prompts", args.prompts]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        vllm = json.loads(done.stdout.splitlines()[-1])
        rows.append(row("generate_vs_vllm_cpu", ours, vllm["rate"], unit, "vLLM on the CPU", vllm["version"]))

    publish("engines", rows)


if __name__ == "__main__":
    main()
