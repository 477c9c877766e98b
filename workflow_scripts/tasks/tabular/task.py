"""Rows of a table that a model writes, as in SynFed: five samples in, one new row as JSON out.

A prompt holds the rows most like a real one, and the one least like it. Its `answer` is what grading needs, as JSON:
the schema, the row's place in the training table, and the places of the examples. An answer is graded by what can be
read from it (core/schemas.py); among rows, the gain that a task model has of them counts (by addscore).
"""

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache

from workflow_scripts.core import groups
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest
from workflow_scripts.core.records import read_records
from workflow_scripts.tasks.tabular.schemas import STATUSES, Row, Schema, as_text, extract
from workflow_scripts.core.single_turn import STOP, reply, requests, segments  # noqa: F401

MAKES_UP = False
FIGURES = {
    "valid": ("valid rows", ".1%"),
    "tstr": ("trained on synthetic, tested on real", ".3f"),
    "copies": ("copies of training rows", ".1%"),
}
GRADED = "status"
COPY = STATUSES["SUCCESS"] - 1  # the rank of a row that is one of the training table
WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()


# ---------------------------------------------------------------- prompts


def in_words(count: int) -> str:
    return WORDS[count] if count < len(WORDS) else str(count)


def question(samples: list[Row], target: str, task: str) -> str:
    """What the model is asked: the samples, how many features there are, the target and its kind."""
    features = in_words(len(samples[0]) - 1)
    listed = "\n".join(map(as_text, samples))
    return (
        f"Here are {in_words(len(samples))} samples of a table with {features} features and the target "
        f'"{target}" ({task}):\n{listed}\nWrite exactly one new sample like these as JSON.'
    )


def nearest(schema: Schema, choices: list[str], row: Row) -> str:
    """The candidate that a row's target is, or is nearest to."""
    value = row[schema.target]
    if schema.task == "classification":
        return str(value)
    return min(choices, key=lambda choice: abs(float(choice) - float(value)))


def task_question(schema: Schema, choices: list[str], shots: list[Row], row: Row) -> tuple[str, str, str]:
    """What a task model is asked of a row after examples: the text before a further example, the text after, and the
    right answer."""
    before = f'What is "{schema.target}" in the last row?\n' + "".join(shot(schema, choices, one) for one in shots)
    return before, as_text({name: row[name] for name in schema.features}), nearest(schema, choices, row)


def shot(schema: Schema, choices: list[str], row: Row) -> str:
    """A row as an example: its features and the answer, a line."""
    return f"{as_text({name: row[name] for name in schema.features})} {nearest(schema, choices, row)}\n"


def answer_key(schema: Schema, row: int, examples: list[int]) -> str:
    found = {"schema": schema.model_dump(mode="json"), "row": row, "examples": examples}
    return json.dumps(found, ensure_ascii=False)


def read_prompts(split: dict, prompts: dict, name: str, seed: int) -> Iterator[dict]:
    """The prompts that gen_synsft wrote: id, question, answer, level."""
    yield from itertools.islice(read_records(split["file"]), split["limit"])


def worked_examples(cold_start: dict, seed: int) -> Iterator[dict]:
    """Nothing: gen_synsft writes them as Alpaca's instruction and output, which construct_sft reads."""
    raise BadInput("task tabular: cold_start takes no `count`; its examples are made of tabular.datasets")


# ---------------------------------------------------------------- grading


@cache
def schema_of(text: str) -> Schema:
    return Schema.model_validate(json.loads(text)["schema"])


def grade(record: dict, run: Callable[[str], dict]) -> dict:
    """{status, row}: see core/schemas.py."""
    status, row = extract(record["solution"], schema_of(record["correct"]))
    return {"status": status, "row": row}


def tally(records: list[dict], earlier: list[dict]) -> dict[str, float]:
    return {name: share for name, share in statuses(records).items() if share}


def construct_meta(records: list[dict], dedup: bool) -> dict[str, dict]:
    """As `core/groups.py`, with each answer's status."""
    return groups.construct_meta(records, dedup, verdict="status")


def counts(meta: dict[str, dict]) -> dict[str, int]:
    found = Counter(answer["status"] for entry in meta.values() for answer in entry["resps"])
    return {status: found[status] for status in STATUSES}


# ---------------------------------------------------------------- preference pairs


def worth(answer: dict) -> tuple[int, float, float]:
    """What an answer is ranked by: status, score, likelihood. A row without them is a copy: below the rest.

    Of a quantity, gains count in tenths of a deviation: the answer is a mean, which moves a little with any example.
    """
    rank = STATUSES[answer["status"]]
    if rank < STATUSES["SUCCESS"]:
        return rank, 0.0, 0.0
    if answer["score"] is None:
        return COPY, 0.0, 0.0
    return rank, round(answer["score"], 1 if answer["label"] is None else 9), answer["likelihood"]


def select(metas: dict[str, dict], settings: dict, seed: int, encode: Callable) -> tuple[list[dict], Counter]:
    """Two rows for each pair of answers to one prompt that has a good one: better status, or equal and higher score.

    Of rows, those with one label are compared: the label that is right more often would win otherwise, whatever stands
    beside it. At most `pairs` of them, drawn by the seed.
    """
    found, dropped = [], Counter()
    for asked, entry in sorted(metas["auto"].items()):
        answers = {answer["text"]: answer for answer in entry["resps"]}  # of equal texts, one
        dropped["answer with the text of another"] += len(entry["resps"]) - len(answers)
        ranked = sorted(answers.values(), key=lambda answer: answer["uid"])
        if max(worth(answer)[0] for answer in ranked) < STATUSES["SUCCESS"]:
            dropped["prompt without a good answer"] += 1
            continue
        for one, other in itertools.combinations(ranked, 2):
            if worth(one) == worth(other):
                dropped["pair of equal worth"] += 1
                continue
            if None not in (one["score"], other["score"]) and one["label"] != other["label"]:
                dropped["pair of different labels"] += 1
                continue
            chosen, rejected = sorted((one, other), key=worth, reverse=True)
            if worth(chosen)[0] == COPY:
                dropped["pair that a copy of a training row would win"] += 1
                continue
            found.append((asked, entry, chosen, rejected))
    if len(found) > settings["pairs"]:
        dropped["pair beyond data.pairs"] += len(found) - settings["pairs"]
        found = random.Random(f"{seed}.pairs").sample(found, settings["pairs"])
    return [row for pair in found for row in pair_rows(*pair)], +dropped


def pair_rows(asked: str, entry: dict, chosen: dict, rejected: dict) -> Iterator[dict]:
    name, by = digest([chosen["uid"], rejected["uid"]]), worth(chosen)[0] > worth(rejected)[0]
    for side, answer, sign in (("chosen", chosen, 1.0), ("rejected", rejected, -1.0)):
        row = {"qid": f"{name}.{side}", "pair": name, "type": "status" if by else "score", "advantage": sign}
        row |= {"req": entry["req"], "instruction": asked, "output": answer["text"], "source": answer["uid"]}
        row |= {"status": answer["status"], "score": answer["score"]}
        yield row | {key: answer[key] for key in ("prompt_tokens", "tokens", "mask", "policy", "finish")}


# ---------------------------------------------------------------- evaluation


def statuses(records: list[dict]) -> dict[str, float]:
    found = Counter(record["status"] for record in records)
    return {status: found[status] / max(1, len(records)) for status in STATUSES}


def summarise(records: list[dict]) -> dict:
    """{valid, statuses, n}; what the rows are worth is added by table_report, which has the tables."""
    found = statuses(records)
    return {"valid": found["SUCCESS"], "statuses": found, "n": len(records), "by_level": {}}
