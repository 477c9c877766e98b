"""GRPO beside TRL's GRPOTrainer: the recommend twin's single-turn variant, one process and one thread each.

    .venv/bin/snakemake --profile local round0_checkpoint --configfile recipes/recommend-tiny.yaml
    OMP_NUM_THREADS=1 .venv-trl/bin/python -m benchmarks.grpo

Both start from the twin's round 0, see the same prompts (a genre and a decade are told, so nothing needs to be asked)
with the same reward, 8 samples each, and no KL term. TRL updates once per 64 samples and never uses them again, as it
does by default; ours takes the samples in rounds, with two passes over each. `points/s` is success gained on held-out
dialogues (one sample at temperature 1, in percentage points) per second of CPU time, evaluation and set-up left out.
"""

import argparse
import json
import tempfile
from importlib.metadata import version
from time import process_time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from benchmarks.common import publish, row
from workflow_scripts import engines
from workflow_scripts.core.advantages import advantages
from workflow_scripts.core.dialogue_sections import Recommend
from workflow_scripts.core.prompts import render
from workflow_scripts.core.sections import Prompts, Train
from workflow_scripts.engines import Request
from workflow_scripts.logp import score
from workflow_scripts.tasks import recommend
from workflow_scripts.training import bins
from workflow_scripts.training.logps import load_policy
from workflow_scripts.training.trainer import fit

RUN = "runs/recommend-tiny"
SAMPLES, TOKENS, LEARNING_RATE = 8, 40, 6e-4


def prompts_of(split: str, count: int) -> list[dict]:
    """Prompts of the level where nothing needs to be asked: {text, targets}."""
    values = {"pool": {"count": {}}, "eval": {"count": {}}} | {split: {"count": {"genre_and_decade": count}}}
    settings = Prompts.model_validate(values).model_dump(mode="json")
    made = recommend.read_prompts(settings[split], settings, split, 1)
    asked = [(one, recommend.requests(one["question"], "auto")["auto"]) for one in made]
    return [{"prompt": render("deepseek", text), "targets": json.loads(one["answer"])} for one, text in asked]


class Judge:
    """The twin's environment after one turn: 1 for a hit."""

    def __init__(self):
        grounding = {"top_k": 3}
        settings = Recommend(grounding=grounding, list_length=3).model_dump(mode="json")
        self.environment = recommend.environment(settings, f"{RUN}/catalogue/items.pkl")

    def reward(self, text: str, targets: list[str]) -> float:
        turns = [{"role": "assistant", "content": text}]
        return float(self.environment.judge(turns, targets)["success"])


def answered(folder: str, prompts: list[dict], samples: int, temperature: float, seed: int) -> list[tuple]:
    """(prompt, its tokens, Completion, text) of each sample."""
    sampling = {"temperature": temperature, "top_p": 1.0, "top_k": 0}
    engine = engines.load(
        "transformers", model=folder, settings={"threads": 1, "dtype": "float32"}, sampling=sampling, stop=()
    )
    asked = [(one, engine.tokenizer.encode(one["prompt"])) for one in prompts for _ in range(samples)]
    requests = [Request(tokens, seed * 1_000_000 + i, TOKENS) for i, (_, tokens) in enumerate(asked)]
    found = [one for start in range(0, len(requests), 128) for one in engine.generate(requests[start : start + 128])]
    texts = [engine.tokenizer.decode(one.tokens, skip_special_tokens=True) for one in found]
    return [(*left, one, text) for left, one, text in zip(asked, found, texts)]


def success(folder: str, prompts: list[dict], judge: Judge) -> float:
    found = answered(folder, prompts, 1, 1.0, 999)
    return sum(judge.reward(text, one["targets"]) for one, _, _, text in found) / len(prompts)


# ---------------------------------------------------------------- ours


@torch.no_grad()
def scored(folder: str, rows: list[dict]) -> None:
    model = load_policy(folder, "float32").eval()
    for members in bins.pack(range(len(rows)), [len(r["prompt_tokens"]) + len(r["tokens"]) for r in rows], 16384):
        for place, values in zip(members, score(model, [rows[i] for i in members], 1.0)):
            rows[place]["behaviour"] = torch.tensor(values).numpy()


def ours(folder: str, prompts: list[dict], judge: Judge, rounds: int, place: str) -> tuple[str, float]:
    """The last policy's folder, and seconds of CPU time."""
    begin, each = process_time(), len(prompts) // rounds
    for number in range(rounds):
        found = answered(folder, prompts[number * each : (number + 1) * each], SAMPLES, 1.0, number)
        rows = [
            {"prompt_tokens": asked, "tokens": one.tokens, "mask": [1] * len(one.tokens), "foreign": False}
            | {"reward": judge.reward(text, prompt["targets"]), "group": prompt["prompt"] + str(prompt["targets"])}
            for prompt, asked, one, text in found
        ]
        values = advantages([r["reward"] for r in rows], [r["group"] for r in rows], "group_std")
        rows = [one | {"advantage": value} for one, value in zip(rows, values) if value is not None]
        scored(folder, rows)
        settings = Train(lr=LEARNING_RATE, warmup=0, adam_eps=1e-5, clip_high=0.28, epochs=2, batch_size=32)
        trainer = fit(folder, rows, settings, temperature=1.0, seed=number, state=f"{place}/state{number}", pad=0)
        tokenizer, folder = AutoTokenizer.from_pretrained(folder), f"{place}/r{number}"
        trainer.model.config.use_cache = True
        trainer.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder, process_time() - begin


# ---------------------------------------------------------------- TRL


class Begun(TrainerCallback):
    def on_train_begin(self, *_, **__):
        self.begin = process_time()


def trl(folder: str, prompts: list[dict], judge: Judge, place: str) -> tuple[str, float]:
    """The same by GRPOTrainer; the clock starts with its first step, after it is set up."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    batch = 64
    config = GRPOConfig(
        output_dir=f"{place}/trl", per_device_train_batch_size=batch, max_steps=len(prompts) * SAMPLES // batch,
        num_generations=SAMPLES, max_completion_length=TOKENS, temperature=1.0, top_p=1.0, top_k=0, beta=0.0,
        learning_rate=LEARNING_RATE, lr_scheduler_type="constant", warmup_steps=0, adam_epsilon=1e-5, max_grad_norm=1.0,
        epsilon=0.2, epsilon_high=0.28, loss_type="dapo", scale_rewards="group", bf16=False, use_cpu=True,
        gradient_checkpointing=False, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip

    def reward(completions, targets, **_):
        return [judge.reward(text, wanted) for text, wanted in zip(completions, targets)]

    begun = Begun()
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), reward_funcs=reward, args=config,
        train_dataset=Dataset.from_list(prompts), processing_class=AutoTokenizer.from_pretrained(folder),
        callbacks=[begun],
    )  # fmt: skip
    trainer.train()
    seconds = process_time() - begun.begin
    trainer.save_model(f"{place}/trl")
    trainer.processing_class.save_pretrained(f"{place}/trl")
    return f"{place}/trl", seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=192, help="of training, 8 samples each")
    parser.add_argument("--rounds", type=int, default=3, help="that ours takes them in")
    parser.add_argument("--held-out", type=int, default=400, help="dialogues of evaluation")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, judge = f"{RUN}/checkpoints/r0/model", Judge()
    train, held_out = prompts_of("pool", args.prompts), prompts_of("eval", args.held_out)
    before = success(start, held_out, judge)
    with tempfile.TemporaryDirectory() as place:
        left, seconds = ours(start, train, judge, args.rounds, place)
        right, theirs = trl(start, train, judge, place)
        reached = [success(folder, held_out, judge) for folder in (left, right)]
    gained = [100 * (value - before) for value in reached]
    both = gained[0] / seconds, gained[1] / theirs, "points/s", "trl", version("trl")
    more = {"samples": args.prompts * SAMPLES, "start": before, "success": reached[0], "success_peer": reached[1]}
    publish("grpo", [row("single-turn GRPO", *both, **more, cpu_s=seconds, cpu_s_peer=theirs)])


if __name__ == "__main__":
    main()
