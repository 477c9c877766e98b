"""The transformers engine beside plain `model.generate` in padded batches: the same prompts, model and stops.

    python -m benchmarks.engines [--checkpoint runs/arithmetic/checkpoints/r0/checkpoint.json]

Both sample eight answers to each question of the default experiment, as its rounds do, in batches of the same size;
the peer takes them in the order of the prompts. Sides take turns; medians of five. With --vllm PYTHON, vLLM on the
CPU is measured once beside them, for the record.
"""

import argparse
import json
import subprocess
import time

import torch
import transformers

from benchmarks.common import interleaved, publish, row
from workflow_scripts import engines, tasks
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.prompts import render
from workflow_scripts.core.records import read_records

SAMPLING, MAX_TOKENS, BATCH, SAMPLES = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}, 64, 128, 8
SETTINGS = {"threads": 1, "dtype": "float32"}


def contexts(tokenizer, prompts: str) -> list[list[int]]:
    """Token ids of every question, as often as it is asked."""
    texts = [render("deepseek", record["question"]) for record in read_records(prompts) for _ in range(SAMPLES)]
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def with_engine(engine, prompts: list[list[int]]) -> int:
    """Tokens sampled, in the stage's plan: by length, in batches."""
    jobs = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    sampled = 0
    for start in range(0, len(jobs), BATCH):
        asked = [engines.Request(prompts[i], i, MAX_TOKENS) for i in jobs[start : start + BATCH]]
        sampled += sum(len(answer.tokens) for answer in engine.generate(asked))
    return sampled


@torch.inference_mode()
def with_generate(model, tokenizer, prompts: list[list[int]], stop: list[str]) -> int:
    torch.manual_seed(0)
    sampled, pad = 0, tokenizer.eos_token_id
    for start in range(0, len(prompts), BATCH):
        batch = tokenizer.pad({"input_ids": prompts[start : start + BATCH]}, padding_side="left", return_tensors="pt")
        out = model.generate(
            **batch, do_sample=True, top_k=0, max_new_tokens=MAX_TOKENS, pad_token_id=pad, stop_strings=stop,
            tokenizer=tokenizer,
        )  # fmt: skip
        new = out[:, batch["input_ids"].shape[1] :]
        sampled += int((new != pad).sum() + (new == pad).any(1).sum())  # the first end token counts
    return sampled


def rate(work, *arguments) -> float:
    started = time.perf_counter()
    return work(*arguments) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="runs/arithmetic/checkpoints/r0/checkpoint.json")
    parser.add_argument("--prompts", default="runs/arithmetic/prompts/train.parquet")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--vllm", help="the Python of vLLM's environment")
    parser.add_argument("--only-vllm", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    task, folder = tasks.load("arithmetic"), model_folder(args.checkpoint)
    name = "vllm" if args.only_vllm else "transformers"
    engine = engines.load(name, model=folder, settings=SETTINGS, sampling=SAMPLING, stop=task.STOP)
    prompts = contexts(engine.tokenizer, args.prompts)
    if args.only_vllm:
        with_engine(engine, prompts[:BATCH])
        print(json.dumps({"rate": rate(with_engine, engine, prompts), "version": engine.version["vllm"]}))
        return
    with_engine(engine, prompts[:BATCH])
    stop = list(task.STOP)
    ours, peer = interleaved(
        lambda: rate(with_engine, engine, prompts),
        lambda: rate(with_generate, engine.model, engine.tokenizer, prompts, stop),
        args.repeats,
    )
    name, plain = "generate_vs_padded", "model.generate, padded batches"
    found = [row(name, ours, peer, "sampled tokens/s", plain, transformers.__version__)]
    if args.vllm:
        command = [args.vllm, "-m", "benchmarks.engines", "--only-vllm"]
        command += ["--checkpoint", args.checkpoint, "--prompts", args.prompts]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        vllm = json.loads(done.stdout.splitlines()[-1])
        found.append(
            row("generate_vs_vllm_cpu", ours, vllm["rate"], "sampled tokens/s", "vLLM on the CPU", vllm["version"])
        )
    publish("engines", found)


if __name__ == "__main__":
    main()
