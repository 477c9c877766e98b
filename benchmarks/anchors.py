"""Scoring synthetic rows by anchors: what all prompts share is read once, beside each prompt read whole.

    python -m benchmarks.anchors

The rows are of scikit-learn's wine data, drawn with new values. There are ten anchors, four examples in each prompt,
two labels, and a model of 0.7 M parameters with random weights, on one core. The peer reads, for each row, the prompts
of ds0 and ds1 with each answer behind them, in padded batches of as many prompts.
"""

import argparse
import random
from time import perf_counter
from typing import Any

import torch
from transformers import set_seed

from benchmarks.common import interleaved, publish, row
from workflow_scripts.config.sections import Scratch
from workflow_scripts.core.templates import render
from workflow_scripts.init_model import make_model, train_tokenizer
from workflow_scripts.tasks.tabular.gen_scoreanchors import examples_beside
from workflow_scripts.tasks.tabular.inference import infer
from workflow_scripts.tasks.tabular.prefixes import answer_logps, read_beginning
from workflow_scripts.tasks.tabular.questions import example_line, target_question
from workflow_scripts.tasks.tabular.schemas import typed_row
from workflow_scripts.tasks.tabular.split_tables import shipped
from workflow_scripts.tasks.tabular.tables import candidates_of, clusters

ANCHORS = 10
SHOTS = 4
BATCH = 8  # rows that are scored at a time

Tokens = list[int]
Values = tuple[list[float], int]  # log-probs, and the number of tokens that were read for them


def prompts_of(count: int, rng: random.Random) -> tuple[list[str], list[list[str]], list[str]]:
    """Return ds0's prompts, a list of ds1's prompts for each of `count` rows, and the candidates, as text."""
    header, lines = shipped("wine")
    schema = infer("wine", "wine", header, lines)
    rows = [typed_row(schema, header, cells)[0] for cells in lines]
    candidates = candidates_of(schema, rows)
    positions, _ = clusters(rows, schema, ANCHORS, 0)
    anchors = [rows[position] for position in positions]
    examples = examples_beside(anchors, rows, schema, SHOTS, 0)
    questions = [target_question(schema, candidates, examples, anchor) for anchor in anchors]

    def with_example(line: str) -> list[str]:
        return [render("deepseek", question.before + line + question.after) for question in questions]

    drawn = [{name: rng.choice(rows)[name] for name in header} for _ in range(count)]
    groups = [with_example(example_line(schema, candidates, row)) for row in drawn]
    return with_example(""), groups, candidates


@torch.inference_mode()
def whole(model: Any, ds0: list[Tokens], groups: list[list[Tokens]], answers: list[Tokens]) -> Values:
    """Score as the peer: every prompt with every answer from its first token, ds0 again for each row."""
    values = []
    read = 0

    for start in range(0, len(groups), BATCH):
        batch = []
        for group in groups[start : start + BATCH]:
            batch += [prompt + answer for prompt in [*ds0, *group] for answer in answers]
        width = max(map(len, batch))
        ids = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens in batch])
        mask = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in batch])
        hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state

        for i, tokens in enumerate(batch):
            answer = answers[i % len(answers)]
            places = torch.arange(len(tokens) - len(answer) - 1, len(tokens) - 1)
            logps = model.lm_head(hidden[i, places]).log_softmax(-1)
            values.append(logps[torch.arange(len(answer)), torch.tensor(answer)].sum().item())
        read += sum(map(len, batch))

    return values, read


def shared(model: Any, ds0: list[Tokens], groups: list[list[Tokens]], answers: list[Tokens]) -> Values:
    """Score as the stage addscore does, with the values in the peer's order."""
    beginning = read_beginning(model, [ds0, *groups[:1]])
    [of_ds0], read = answer_logps(model, [ds0], answers, beginning)
    read += len(beginning.tokens) if beginning else 0
    values: list[float] = []

    for start in range(0, len(groups), BATCH):
        of_groups, count = answer_logps(model, groups[start : start + BATCH], answers, beginning)
        for group in of_groups:
            for of_prompt in [*of_ds0, *group]:
                values += of_prompt
        read += count

    return values, read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16, help="rows that are scored (default: 16)")
    args = parser.parse_args()
    torch.set_num_threads(1)

    of_ds0, of_groups, candidates = prompts_of(args.rows, random.Random(0))
    scratch = Scratch(vocabulary=512)
    tokenizer = train_tokenizer([text for group in of_groups for text in group], scratch.vocabulary)
    set_seed(0)
    model = make_model(scratch.model_dump(), tokenizer, 0).eval()
    ds0 = [tokenizer.encode(text) for text in of_ds0]
    groups = [[tokenizer.encode(text) for text in group] for group in of_groups]
    answers = [[*tokenizer.encode(f" {candidate}"), tokenizer.eos_token_id] for candidate in candidates]

    ours, read = shared(model, ds0, groups, answers)
    theirs, all_read = whole(model, ds0, groups, answers)
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-3

    def per_second(score) -> float:
        began = perf_counter()
        score(model, ds0, groups, answers)
        return len(groups) / (perf_counter() - began)

    mine, peer = interleaved(lambda: per_second(shared), lambda: per_second(whole), 3)
    named = ("each prompt whole, one core", "")
    rows = [row("rows scored", mine, peer, "rows/s", *named), row("tokens read", read, all_read, "tokens", *named)]
    publish("anchors", rows)


if __name__ == "__main__":
    main()
