"""Train a reward model from preference pairs, and certify it on held-out pairs.

The model starts from a checkpoint of a language model (or a reward model) and gets one output. The loss of a pair is
-log sigmoid(score of chosen - score of rejected), which is the Bradley-Terry model (Ouyang et al. 2022, arXiv
2203.02155, equation 1). Pairs are held out by their prompt, so no prompt is in both parts. The checkpoint records the
accuracy on held-out pairs with its interval; a model below `least_accuracy` is not published.

Not covered: several GPUs. The training runs in one process, in float32 or with autocast to bfloat16.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import RewardTraining, settings_of
from workflow_scripts.core.checkpoint import model_folder, publish, remove
from workflow_scripts.core.errors import BadInput, Reject
from workflow_scripts.core.files import write_rejects
from workflow_scripts.core.formats import preference_pair
from workflow_scripts.core.identity import digest
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.records import Message, conserve
from workflow_scripts.core.running.cli import add_code_argument, arguments, run, say
from workflow_scripts.core.running.code import code_identity
from workflow_scripts.core.running.manifest import content_digest, write_usage
from workflow_scripts.core.significance import wilson
from workflow_scripts.core.sources import records_of
from workflow_scripts.rewards._models import encode_answer, prepare_for_batches

Pair = dict[str, Any]  # tokens of `chosen` and `rejected`, and the `key` of their prompt


# ---------------------------------------------------------------- pairs


def read_pairs(settings: RewardTraining, tokenizer: Any, window: int) -> tuple[list[Pair], list[dict[str, Any]]]:
    """Return the pairs as tokens, and the records that cannot be used with their reasons."""
    columns = {"prompt": settings.prompt_key, "chosen": settings.chosen_key, "rejected": settings.rejected_key}
    pairs = []
    rejects = []
    records = 0

    for number, record in enumerate(records_of(settings.model_dump())):
        if number == 0 and (missing := set(columns.values()) - record.keys() - {settings.prompt_key}):
            raise BadInput(f"{settings.file}, record 1: has no {sorted(missing)[0]!r}, only {', '.join(record)}")
        records += 1
        named = {side: column for side, column in columns.items() if column in record}

        try:
            pairs.append(encode_pair(*preference_pair(record, named), tokenizer, window))
        except Reject as error:
            rejects.append({"record": number, "reason": str(error)})

    conserve("train_reward_model", records, len(pairs), len(rejects))
    return pairs, rejects


def encode_pair(prompt: Any, chosen: Any, rejected: Any, tokenizer: Any, window: int) -> Pair:
    """Return the tokens of a pair. Raise Reject if one is longer than the window."""
    before: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    pair: Pair = {"key": digest(before)}

    for side, answer in (("chosen", chosen), ("rejected", rejected)):
        turns: list[Message] = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
        pair[side] = encode_answer(tokenizer, [*before, *turns])
        if len(pair[side]["input_ids"]) > window:
            raise Reject(f"{side} has {len(pair[side]['input_ids'])} tokens, more than {window}")

    return pair


def is_held_out(pair: Pair, share: float) -> bool:
    """Return whether a pair is for the certificate. All pairs of a prompt are on the same side."""
    return int(digest(["held out", pair["key"]]), 16) < share * 16**16


# ---------------------------------------------------------------- training


class PairTrainer(Trainer):
    """transformers' Trainer with the loss of pairs."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        scores = model(**inputs).logits[:, 0].float()
        chosen, rejected = scores.chunk(2)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
        return (loss, {"scores": scores}) if return_outputs else loss


def collate(tokenizer: Any, pairs: Sequence[Pair]) -> dict[str, torch.Tensor]:
    """Return a padded batch: all chosen answers, then all rejected ones."""
    encoded = [pair["chosen"] for pair in pairs] + [pair["rejected"] for pair in pairs]
    return dict(tokenizer.pad(encoded, return_tensors="pt", padding_side="right"))


def fit(model: Any, tokenizer: Any, pairs: list[Pair], settings: RewardTraining, seed: int, state: Path) -> None:
    """Train the model in place, from the saved state if there is one."""
    updates = settings.epochs * -(-len(pairs) // settings.batch_size)
    options = TrainingArguments(
        output_dir=str(state),
        per_device_train_batch_size=settings.batch_size,
        max_steps=updates,
        learning_rate=settings.lr,
        lr_scheduler_type="cosine",
        warmup_steps=round(settings.warmup * updates),
        bf16=settings.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=max(1, updates // 20),
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
        seed=seed,
    )
    trainer = PairTrainer(
        model=model,
        args=options,
        train_dataset=pairs,  # type: ignore[arg-type]  (a list serves as a dataset)
        data_collator=lambda batch: collate(tokenizer, batch),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(state)) if state.is_dir() else None)


@torch.inference_mode()
def accuracy(model: Any, tokenizer: Any, pairs: list[Pair], batch_size: int) -> dict[str, Any]:
    """Return the share of pairs whose chosen answer scores higher, with its interval. A tie counts as wrong."""
    model.eval()
    right = 0

    for start in range(0, len(pairs), batch_size):
        batch = collate(tokenizer, pairs[start : start + batch_size])
        scores = model(**{name: value.to(model.device) for name, value in batch.items()}).logits[:, 0].float()
        chosen, rejected = scores.chunk(2)
        right += int((chosen > rejected).sum())

    return {"accuracy": right / len(pairs), "pairs": len(pairs), **wilson(right, len(pairs))}


# ---------------------------------------------------------------- the stage


def load_base(folder: str, seed: int) -> tuple[Any, Any, int]:
    """Return (model with one output, tokenizer, tokens of its context)."""
    from transformers import AutoModelForSequenceClassification

    set_seed(seed)  # the output's weights are drawn
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return model, tokenizer, prepare_for_batches(model, tokenizer)


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--model", required=True, help="checkpoint.json to start from, or a folder of a model")
    parser.add_argument("--settings", required=True, help=settings_help("train_reward_model"))
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--state", type=Path, required=True, help="folder for the saved states of unfinished runs")
    parser.add_argument("--output", required=True, help="checkpoint.json to write; the model goes beside it")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    started = time.time()
    settings = RewardTraining.model_validate(json.loads(args.settings))
    torch.set_num_threads(settings.threads)

    folder = model_folder(args.model) if args.model.endswith(".json") else args.model
    inputs = {args.model: content_digest(args.model)} if Path(args.model).exists() else {}
    if Path(settings.file).exists():
        inputs[settings.file] = content_digest(settings.file)

    model, tokenizer, window = load_base(folder, args.seed)
    pairs, rejects = read_pairs(settings, tokenizer, min(window, settings.max_length))
    held_out = [pair for pair in pairs if is_held_out(pair, settings.held_out)]
    learnt = [pair for pair in pairs if not is_held_out(pair, settings.held_out)]
    write_rejects(str(Path(args.output).with_name("pairs.jsonl")), rejects)
    if not (held_out and learnt):
        raise BadInput(f"{settings.file}: {len(pairs)} usable pairs are too few to hold out {settings.held_out:.0%}")

    code = args.code or code_identity("workflow_scripts.train_reward_model:main")
    state = args.state / digest([inputs, settings_of(settings), args.seed, code])
    fit(model, tokenizer, learnt, settings, args.seed, state)

    certificate = accuracy(model, tokenizer, held_out, settings.batch_size)
    words = f"accuracy {certificate['accuracy']:.1%} on {len(held_out)} held-out pairs"
    if certificate["accuracy"] < settings.least_accuracy:
        raise BadInput(
            f"the reward model has {words}, but train_reward_model.least_accuracy is {settings.least_accuracy:.0%}; "
            "train longer, give more pairs, or lower it"
        )

    def save(place: Path) -> None:
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)

    fields = {
        "inputs": inputs,
        "settings": settings.model_dump(mode="json") | {"seed": args.seed},
        "rows": len(learnt),
        "rejects": len(rejects),
        "certificate": certificate,
    }
    manifest = publish(args.output, save, fields)
    write_usage(args.output, seconds=time.time() - started, code=args.code)
    remove(args.state)
    if rejects:
        say(f"{len(rejects)} pairs cannot be used; the first reason: {rejects[0]['reason']}")
    print(f"reward model {manifest['digest']}: {len(learnt)} pairs, {words}")


if __name__ == "__main__":
    run(main)
