"""The transformers engine beside plain `model.generate` in padded batches: the same prompts, model and stops.

    python -m benchmarks.engines [--checkpoint runs/arithmetic/checkpoints/r0/checkpoint.json]

Both sample eight answers to each question of the default experiment, as its rounds do, in batches of the same size;
the peer takes them in the order of the prompts. Sides take turns; medians of five. With --vllm PYTHON, vLLM on the
CPU is measured once beside them, for the record.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import torch
import transformers

from workflow_scripts import engines, tasks
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.prompts import render
from workflow_scripts.core.records import read_records, write_json

OUT = Path("benchmarks/out/engines.json")
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
    task, folder, name = (
        tasks.load("arithmetic"),
        model_folder(args.checkpoint),
        "vllm" if args.only_vllm else "transformers",
    )
    engine = engines.load(name, model=folder, settings=SETTINGS, sampling=SAMPLING, stop=task.STOP)
    prompts = contexts(engine.tokenizer, args.prompts)
    if args.only_vllm:
        with_engine(engine, prompts[:BATCH])
        print(json.dumps({"rate": rate(with_engine, engine, prompts), "version": engine.version["vllm"]}))
        return
    ours, peer = [], []
    for turn in range(args.repeats + 1):
        sides = (
            rate(with_engine, engine, prompts),
            rate(with_generate, engine.model, engine.tokenizer, prompts, list(task.STOP)),
        )
        if turn:  # the first warms up
            ours.append(sides[0])
            peer.append(sides[1])
    entries = [entry("transformers engine", ours, peer, "model.generate, padded batches", transformers.__version__)]
    if args.vllm:
        command = [
            args.vllm,
            "-m",
            "benchmarks.engines",
            "--only-vllm",
            "--checkpoint",
            args.checkpoint,
            "--prompts",
            args.prompts,
        ]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        entries.append(entry("transformers engine", ours, [found["rate"]], "vLLM on the CPU", found["version"]))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUT, entries)
    for one in entries:
        print("{name}: {ours:.0f} {unit}; {peer_name} {peer_version}: {peer:.0f}; ratio {ratio:.2f}".format(**one))


def entry(name: str, ours: list[float], peer: list[float], peer_name: str, version: str) -> dict:
    middle = statistics.median(ours), statistics.median(peer)
    return {
        "name": name, "ours": middle[0], "peer": middle[1], "ratio": middle[0] / middle[1], "unit": "sampled tokens/s",
        "peer_name": peer_name, "peer_version": version, "ours_all": ours, "peer_all": peer,
    }  # fmt: skip


if __name__ == "__main__":
    main()
