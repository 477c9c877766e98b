"""GRPO beside TRL's GRPOTrainer: the recommend twin's single-turn variant, one process and one thread each.

    .venv/bin/snakemake --profile local round0_checkpoint --configfile recipes/recommend-tiny.yaml
    OMP_NUM_THREADS=1 .venv-trl/bin/python -m benchmarks.grpo

Both start from the twin's round 0 and see the same prompts (a genre and a decade are told, so nothing needs to be
asked) with the same reward, 8 samples each, and no KL term. TRL updates once per 64 samples and never uses them again,
as it does by default. Ours takes the samples in rounds, with two passes over each. `points/s` is success gained on
held-out dialogues (one sample at temperature 1, in percentage points) per second of CPU time, without evaluation and
set-up.
"""

import argparse
import tempfile
from importlib.metadata import version
from time import process_time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from benchmarks.common import publish, row
from workflow_scripts import engines, tasks
from workflow_scripts.config.sections import Prompts, Train
from workflow_scripts.core.advantages import advantages
from workflow_scripts.core.templates import render
from workflow_scripts.engines import Completion, Request
from workflow_scripts.logp import score
from workflow_scripts.tasks.recommend.items import Catalogue
from workflow_scripts.tasks.recommend.outcomes import outcome_of
from workflow_scripts.tasks.recommend.settings import Grounding
from workflow_scripts.training import bins
from workflow_scripts.training.logps import load_policy
from workflow_scripts.training.trainer import fit

RUN = "runs/recommend-tiny"
SAMPLES = 8
TOKENS = 40
LEARNING_RATE = 6e-4
BATCH = 64  # samples per update of TRL

Asked = dict[str, Any]  # a rendered prompt, and the titles that the seeker looks for
Sample = tuple[Asked, list[int], Completion, str]  # prompt, its tokens, completion, its text


def prompts_of(split: str, count: int) -> list[Asked]:
    """Return prompts of the level where nothing needs to be asked, as {prompt, targets}."""
    empty: dict[str, Any] = {"pool": {"count": {}}, "eval": {"count": {}}}
    values = empty | {split: {"count": {"genre_and_decade": count}}}
    settings = Prompts.model_validate(values).model_dump(mode="json")
    conversation = tasks.load("recommend", "Conversation")

    prompts = []
    for prompt in tasks.load("recommend", "Prompts").read(settings[split], settings, split, 1):
        request = conversation.requests(prompt, "auto")["auto"]
        prompts.append({"prompt": render("deepseek", request), "targets": prompt["reference"]})
    return prompts


class Judge:
    """The reward of the twin after one turn: 1 for a hit."""

    def __init__(self):
        self.catalogue = Catalogue(f"{RUN}/catalogue/items.pkl", Grounding(top_k=3))

    def reward(self, text: str, targets: list[str]) -> float:
        turns: Any = [{"role": "assistant", "content": text}]
        return float(outcome_of(self.catalogue, turns, targets).success)


def sample(folder: str, prompts: list[Asked], samples: int, temperature: float, seed: int) -> list[Sample]:
    """Return `samples` answers of the model in a folder to each prompt."""
    engine = engines.load(
        "transformers",
        model=folder,
        settings={"threads": 1, "dtype": "float32"},
        sampling={"temperature": temperature, "top_p": 1.0, "top_k": 0},
        stop=(),
    )
    tokenized = []
    for prompt in prompts:
        tokenized += [(prompt, engine.tokenizer.encode(prompt["prompt"]))] * samples
    requests = [Request(tokens, seed * 1_000_000 + i, TOKENS) for i, (_, tokens) in enumerate(tokenized)]

    completions: list[Completion] = []
    for start in range(0, len(requests), 128):
        completions += engine.generate(requests[start : start + 128])

    texts = [engine.tokenizer.decode(completion.tokens, skip_special_tokens=True) for completion in completions]
    return [(*left, completion, text) for left, completion, text in zip(tokenized, completions, texts)]


def success(folder: str, prompts: list[Asked], judge: Judge) -> float:
    """Return the share of prompts at whose answer the judge sees a hit."""
    answers = sample(folder, prompts, 1, 1.0, 999)
    return sum(judge.reward(text, prompt["targets"]) for prompt, _, _, text in answers) / len(prompts)


# ---------------------------------------------------------------- ours


@torch.no_grad()
def add_logps(folder: str, rows: list[dict[str, Any]]) -> None:
    """Give each row its log-probs under the policy that sampled it."""
    model = load_policy(folder, "float32").eval()
    lengths = [len(row["prompt_tokens"]) + len(row["tokens"]) for row in rows]

    for members in bins.pack(range(len(rows)), lengths, 16384):
        for position, values in zip(members, score(model, [rows[i] for i in members], 1.0)):
            rows[position]["behaviour_logps"] = torch.tensor(values).numpy()


def make_rows(samples: list[Sample], judge: Judge) -> list[dict[str, Any]]:
    """Return training rows with advantages; groups without variance are left out."""
    rows = []
    groups = []
    for prompt, tokens, completion, text in samples:
        row = {"prompt_tokens": tokens, "tokens": completion.tokens, "mask": [1] * len(completion.tokens)}
        rows.append(row | {"foreign": False, "reward": judge.reward(text, prompt["targets"])})
        groups.append(prompt["prompt"] + str(prompt["targets"]))

    values = advantages([row["reward"] for row in rows], groups, "group_std")
    return [row | {"advantage": value} for row, value in zip(rows, values) if value is not None]


def ours(folder: str, prompts: list[Asked], judge: Judge, rounds: int, place: str) -> tuple[str, float]:
    """Train in rounds; return the last policy's folder, and the seconds of CPU time."""
    settings = Train(lr=LEARNING_RATE, warmup=0, adam_eps=1e-5, clip_high=0.28, epochs=2, batch_size=32)
    each = len(prompts) // rounds
    begin = process_time()

    for number in range(rounds):
        samples = sample(folder, prompts[number * each : (number + 1) * each], SAMPLES, 1.0, number)
        rows = make_rows(samples, judge)
        add_logps(folder, rows)
        trainer = fit(folder, rows, settings, temperature=1.0, seed=number, state=f"{place}/state{number}", pad=0)

        tokenizer = AutoTokenizer.from_pretrained(folder)
        folder = f"{place}/r{number}"
        model: Any = trainer.model
        model.config.use_cache = True
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return folder, process_time() - begin


# ---------------------------------------------------------------- TRL


class Begin(TrainerCallback):
    """Notes when training begins, after everything is set up."""

    def on_train_begin(self, *_, **__):
        self.time = process_time()


def trl(folder: str, prompts: list[Asked], judge: Judge, place: str) -> tuple[str, float]:
    """Train by GRPOTrainer; return the last policy's folder, and the seconds of CPU time since its first step."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        output_dir=f"{place}/trl",
        per_device_train_batch_size=BATCH,
        max_steps=len(prompts) * SAMPLES // BATCH,
        num_generations=SAMPLES,
        max_completion_length=TOKENS,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=0.0,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        warmup_steps=0,
        adam_epsilon=1e-5,
        max_grad_norm=1.0,
        epsilon=0.2,
        epsilon_high=0.28,
        loss_type="dapo",
        scale_rewards="group",
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )

    def reward(completions, targets, **_):
        return [judge.reward(text, titles) for text, titles in zip(completions, targets)]

    begin = Begin()
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(prompts),
        processing_class=AutoTokenizer.from_pretrained(folder),
        callbacks=[begin],
    )
    trainer.train()
    seconds = process_time() - begin.time

    trainer.save_model(f"{place}/trl")
    trainer.processing_class.save_pretrained(f"{place}/trl")
    return f"{place}/trl", seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=192, help="training prompts, 8 samples each (default: 192)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that ours takes them in (default: 3)")
    parser.add_argument("--held-out", type=int, default=400, help="dialogues of the evaluation (default: 400)")
    args = parser.parse_args()
    torch.set_num_threads(1)

    start = f"{RUN}/checkpoints/r0/model"
    judge = Judge()
    train = prompts_of("pool", args.prompts)
    held_out = prompts_of("eval", args.held_out)
    before = success(start, held_out, judge)

    with tempfile.TemporaryDirectory() as place:
        mine, seconds = ours(start, train, judge, args.rounds, place)
        peer, peer_seconds = trl(start, train, judge, place)
        after = success(mine, held_out, judge)
        peer_after = success(peer, held_out, judge)

    rates = (100 * (after - before) / seconds, 100 * (peer_after - before) / peer_seconds)
    more = {"samples": args.prompts * SAMPLES, "start": before, "success": after, "success_peer": peer_after}
    more |= {"cpu_s": seconds, "cpu_s_peer": peer_seconds}
    publish("grpo", [row("single-turn GRPO", *rates, "points/s", "trl", version("trl"), **more)])


if __name__ == "__main__":
    main()
