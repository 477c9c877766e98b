"""A recommender that learns in dialogues with a simulated seeker (TART, hirooms2/Learning2Interact).

A prompt's `question` is the beginning of a dialogue as JSON, {dialog: messages, instruction, target_items}: equal
beginnings with other targets are other prompts, and a group of rollouts is of one. The seeker's turns are masked.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator

from workflow_scripts.core import groups
from workflow_scripts.core.groups import counts  # noqa: F401
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest
from workflow_scripts.core.single_turn import segments  # noqa: F401
from workflow_scripts.tasks.recommend import invented, readers
from workflow_scripts.tasks.recommend.items import read_items
from workflow_scripts.tasks.recommend.environment import Environment, figures_of
from workflow_scripts.tasks import math

MAKES_UP = True
FIGURES = {
    "success": ("success", ".1%"),
    "turns": ("interactions", ".2f"),
    "hit_1": ("Hit@1", ".1%"),
    "hit_5": ("Hit@5", ".1%"),
    "hit_10": ("Hit@10", ".1%"),
    "mrr": ("MRR", ".3f"),
    "ndcg_10": ("nDCG@10", ".3f"),
}
GRADED = "reward"
STOP = ()


# ---------------------------------------------------------------- prompts


def read_prompts(split: dict, prompts: dict, name: str, seed: int) -> Iterator[dict]:
    """Made-up dialogues, levels mixed; or those of a file: INSPIRED's, ReDial's, or dialog and target_items."""
    if not split["file"]:
        made = [
            prompt(one["dialog"], one["target_items"], prompts, level)
            for level, count in split["count"].items()
            for one in invented.dialogues(level, name, count, seed)
        ]
        yield from random.Random(f"{seed}.{name}").sample(made, len(made))
        return
    known = {one["title"] for one in read_items(prompts["catalogue"])} if prompts["catalogue"] else None
    for number, found in enumerate(readers.read_dialogues(split["file"])):
        if split["limit"] and number == split["limit"]:
            return
        if missing := [title for title in found["target_items"] if known is not None and title not in known]:
            found = found | {"fault": f"the target {missing[0]!r} is not in the catalogue"}
        made = prompt(found["dialog"], found["target_items"], prompts, found["level"])
        made |= {"id": found["id"], "mentioned": found["mentioned"]}
        yield made | ({"fault": found["fault"]} if found["fault"] else {})


def prompt(dialog: list[dict], targets: list[str], prompts: dict, level: str) -> dict:
    beginning = {"dialog": dialog[-prompts["history"] :], "target_items": targets}
    if prompts["instruction"]:
        beginning |= {"instruction": prompts["instruction"]}
    question, answer = (json.dumps(value, ensure_ascii=False) for value in (beginning, targets))
    return {"id": digest(beginning), "question": question, "answer": answer, "level": level, "mentioned": []}


def items(prompts: dict, records: list[dict]) -> list[dict]:
    """The catalogue: of the file, of the made-up world, and otherwise all that the frozen prompts name."""
    if prompts["catalogue"]:
        return read_items(prompts["catalogue"])
    if all(split is None or split["count"] for split in (prompts[name] for name in ("train", "pool", "eval"))):
        return invented.items()
    return readers.items_of(records)


def worked_examples(cold_start: dict, seed: int) -> Iterator[dict]:
    raise BadInput(
        "cold_start: the task recommend begins with dialogues, not with worked solutions: give `explored: true` with "
        "`recommend.explore`, or a file of conversations (`messages`)"
    )


# ---------------------------------------------------------------- conversation


def environment(settings: dict, catalogue: str, version: str = "eval", ledger: Ledger | None = None) -> Environment:
    """What takes the sandbox's place in `reply` (here `Environment.replies`) and `grade`."""
    return Environment(settings, catalogue, version, ledger)


def requests(question: str, version: str) -> dict[str, list[dict]]:
    """The dialogue so far; the instruction stands before the first words, since not every template has system turns."""
    if version == "trigger":
        raise BadInput("this task asks in one way alone: set generate.trigger to null")
    beginning = json.loads(question)
    return {"auto": instructed(beginning["dialog"], beginning.get("instruction"))}


def instructed(dialog: list[dict], instruction: str | None) -> list[dict]:
    """The messages of a dialogue that begins with the user, as templates want it."""
    if not instruction and dialog[0]["role"] == "user":
        return dialog
    if dialog[0]["role"] != "user":
        return [{"role": "user", "content": instruction or "Hello."}, *dialog]
    return [{"role": "user", "content": f"{instruction}\n\n{dialog[0]['content']}"}, *dialog[1:]]


# ---------------------------------------------------------------- grading


def grade(record: dict, run: Environment) -> dict:
    """`reward`: 1 and a bonus for a hit, else minus recommend.reward; what has the wrong form to the end failed.

    `reranked` is a right list as rewritten, where the rounds train on it too."""
    found = run.judge(record["turns"], json.loads(record["correct"]))
    right = found["success"] and not record.get("fault")
    hit = 1.0 + run.settings["bonus"] / max(1, found["interactions"])
    verdict = {"reward": hit if right else -run.settings["reward"], "success": found["success"]}
    verdict |= {"interactions": found["interactions"], "ranks": found["ranks"]}
    kept = right and run.settings["rerank"] and found["interactions"] == (len(record["turns"]) + 1) // 2
    return verdict | {"reranked": found["reranked"] if kept else None}


def tally(records: list[dict], earlier: list[dict]) -> dict[str, float]:
    return figures(records) | {"reward": sum(record["reward"] for record in records) / len(records)}


def construct_meta(records: list[dict], dedup: bool) -> dict[str, dict]:
    """As `core/groups.py`; an answer also has `reranked`."""
    meta, reranked = groups.construct_meta(records, dedup), {r["uid"]: r["reranked"] for r in records}
    for entry in meta.values():
        entry["resps"] = [answer | {"reranked": reranked[answer["uid"]]} for answer in entry["resps"]]
    return meta


def select(metas: dict[str, dict], settings: dict, seed: int, encode: Callable) -> tuple[list[dict], Counter]:
    """All rollouts, with advantages within a prompt's group; groups without variance are dropped. A rewritten list is a
    row of its own with its rollout's advantage. Nobody sampled it: it is foreign, and no ratio is taken."""
    rows, dropped = groups.select(metas, settings, seed, encode)
    texts = {answer["uid"]: answer["reranked"] for entry in metas["auto"].values() for answer in entry["resps"]}
    better = [rewritten_row(row, texts[row["qid"]], encode) for row in rows if texts[row["qid"]]]
    return rows + better, dropped


def rewritten_row(row: dict, text: str, encode: Callable) -> dict:
    """A rollout with its last utterance in other words."""
    start = len(row["mask"])
    while start and row["mask"][start - 1]:
        start -= 1
    tokens, mask = encode([(text, True)])
    other = {"tokens": row["tokens"][:start] + tokens, "mask": row["mask"][:start] + mask, "policy": "foreign"}
    return row | other | {"qid": f"{row['qid']}.reranked", "output": text, "type": "auto.reranked"}


# ---------------------------------------------------------------- evaluation


def summarise(records: list[dict]) -> dict:
    """The means of FIGURES, and by level; `success_by_turn` is the share of dialogues with a hit up to each turn."""
    return math.by_level(records, figures)


def figures(records: list[dict]) -> dict:
    count = max(1, len(records))
    hits = [record["interactions"] for record in records if record["success"]]
    ranked = [figures_of(record["ranks"]) for record in records]
    return {
        "success": len(hits) / count,
        "turns": sum(record["interactions"] for record in records) / count,
        **{name: sum(one[name] for one in ranked) / count for name in figures_of([])},
        "success_by_turn": [sum(hit <= turn for hit in hits) / count for turn in range(1, max(hits, default=0) + 1)],
        "n": len(records),
    }
