"""Scoring synthetic rows by anchors: what all prompts share is read once, beside each prompt read whole.

    python -m benchmarks.anchors

The rows are of scikit-learn's wine data, drawn with new values; ten anchors, four examples in each prompt, two labels
and a model of 0.7 M parameters with random weights, on one core. The peer reads, for each row, the prompts of ds0 and
ds1 with each answer behind them, in padded batches of as many prompts.
"""

import argparse
import random
from time import perf_counter

import torch
from transformers import set_seed

from benchmarks.common import interleaved, publish, row
from workflow_scripts.core import schemas, tables
from workflow_scripts.core.prompts import render
from workflow_scripts.core.sections import Scratch
from workflow_scripts.gen_scoreanchors import examples
from workflow_scripts.init_model import make_model, train_tokenizer
from workflow_scripts.split_tables import shipped
from workflow_scripts.tasks.tabular import shot, task_question
from workflow_scripts.training.prefixes import answer_logps, read_shared

ANCHORS, SHOTS, BATCH = 10, 4, 8


def prompts_of(count: int, rng: random.Random):
    """(ds0's prompts, a list of ds1's prompts for each of `count` rows, the candidates), as text."""
    header, lines = shipped("wine")
    schema = schemas.infer("wine", "wine", header, lines)
    rows = [schemas.typed(schema, header, cells)[0] for cells in lines]
    choices = tables.candidates(schema, rows)
    anchors = [rows[place] for place in tables.clusters(rows, schema, ANCHORS, 0)[0]]
    asked = [task_question(schema, choices, examples(rows, schema, anchors, SHOTS, 0), one) for one in anchors]
    drawn = [{name: rng.choice(rows)[name] for name in header} for _ in range(count)]
    texts = [
        [before + line + after for before, after, _ in asked]
        for line in ["", *(shot(schema, choices, r) for r in drawn)]
    ]
    return (
        [render("deepseek", text) for text in texts[0]],
        [[render("deepseek", t) for t in one] for one in texts[1:]],
        choices,
    )


@torch.inference_mode()
def whole(model, ds0: list, groups: list, answers: list) -> tuple[list, int]:
    """The peer: every prompt with every answer from its first token, ds0 again for each row."""
    found, read = [], 0
    for start in range(0, len(groups), BATCH):
        batch = [p + a for group in groups[start : start + BATCH] for p in [*ds0, *group] for a in answers]
        width = max(map(len, batch))
        ids = torch.tensor([one + [0] * (width - len(one)) for one in batch])
        mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in batch])
        keep = torch.tensor([len(one) for one in batch])
        hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
        for i in range(len(batch)):
            answer = answers[i % len(answers)]
            places = torch.arange(keep[i] - len(answer) - 1, keep[i] - 1)
            logps = model.lm_head(hidden[i, places]).log_softmax(-1)
            found.append(logps[torch.arange(len(answer)), torch.tensor(answer)].sum().item())
        read += sum(map(len, batch))
    return found, read


def shared(model, ds0: list, groups: list, answers: list) -> tuple[list, int]:
    """Ours, with its values in the peer's order."""
    begun = read_shared(model, [ds0, *groups[:1]])
    (first,), read = answer_logps(model, [ds0], answers, begun)
    read += len(begun[1]) if begun else 0
    found = []
    for start in range(0, len(groups), BATCH):
        values, count = answer_logps(model, groups[start : start + BATCH], answers, begun)
        found += [value for group in values for prompt in [*first, *group] for value in prompt]
        read += count
    return found, read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ds0, ds1, choices = prompts_of(args.rows, random.Random(0))
    scratch = Scratch(vocabulary=512)
    tokenizer = train_tokenizer([text for group in ds1 for text in group], scratch.vocabulary)
    set_seed(0)
    model = make_model(scratch.model_dump(), tokenizer, 0).eval()
    ds0 = [tokenizer.encode(text) for text in ds0]
    groups = [[tokenizer.encode(text) for text in group] for group in ds1]
    answers = [[*tokenizer.encode(f" {choice}"), tokenizer.eos_token_id] for choice in choices]
    (ours, read), (peer, all_read) = shared(model, ds0, groups, answers), whole(model, ds0, groups, answers)
    assert max(abs(a - b) for a, b in zip(ours, peer, strict=True)) < 1e-3

    def per_second(score) -> float:
        began = perf_counter()
        score(model, ds0, groups, answers)
        return len(groups) / (perf_counter() - began)

    mine, other = interleaved(lambda: per_second(shared), lambda: per_second(whole), 3)
    named = ("each prompt whole, one core", "")
    publish(
        "anchors",
        [row("rows scored", mine, other, "rows/s", *named), row("tokens read", read, all_read, "tokens", *named)],
    )


if __name__ == "__main__":
    main()
