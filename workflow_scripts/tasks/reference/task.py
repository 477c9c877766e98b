"""Answers that are to resemble references, as in BLEUBERI (arXiv 2505.11080): instruction in, text out, BLEU as reward.

A prompt's `answer` is its references, a list of texts as JSON. Prompts come from a pool in the original's format (`id`,
`source`, `messages` or `prompt`, `ref_output_{model}`), or are made up: short instructions with three references each,
for a model small enough for a laptop's CPU. Its cold start answers most of them tersely or beside the point.
"""

import itertools
import json
import random
import zlib
from collections.abc import Callable, Iterator

from workflow_scripts.core import groups, rewards
from workflow_scripts.rewards.bleu import answer_of, tokens_of
from workflow_scripts.core.chat import check_messages
from workflow_scripts.core.errors import Reject
from workflow_scripts.core.formats import read_source
from workflow_scripts.core.groups import counts, select  # noqa: F401
from workflow_scripts.core.templates import check_count
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import record_id
from workflow_scripts.core.single_turn import STOP, reply, requests, segments  # noqa: F401
from workflow_scripts.tasks import math

MAKES_UP = True
FIGURES = {
    "bleu": ("BLEU", ".1%"),
    "rouge_l": ("ROUGE-L", ".1%"),
    "distinct_2": ("distinct 2-grams", ".1%"),
    "length": ("tokens per answer", ".0f"),
    "win_rate": ("BLEU against the round before: wins", ".0%"),
}
GRADED = "parts"
NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Klara", "Leo")
THINGS = ("book", "lamp", "cake", "chair", "ticket", "map", "coat", "bag", "ring", "bike", "clock", "plant")
PLACES = ("park", "house", "school", "garden", "market", "bridge", "station", "river", "museum", "harbour")
# level: instruction, references, and what the cold start learns beside them
LEVELS = {
    "greet": (
        "Greet {name} at the {place}.",
        ("Hello {name}, it is good to see you at the {place} today.",
         "Hi {name}, it is good to see you here at the {place}.",
         "Hello {name}, how good to see you at the {place} today."),
        ("{name}.", "{place}.", "The {place} is far away from the {place}."),
    ),
    "thank": (
        "Thank {name} for the {thing}.",
        ("Thank you very much for the {thing}, {name}.",
         "Thank you so much for the {thing}, dear {name}.",
         "Dear {name}, thank you very much for the {thing}."),
        ("{thing}.", "{name} has a {thing} and a {thing}.", "Thanks."),
    ),
    "place": (
        "Say where the {thing} is: {place}.",
        ("You can find the {thing} next to the {place}.",
         "You will find the {thing} next to the {place}.",
         "The {thing} can be found next to the {place}."),
        ("{place}.", "The {thing} is a {thing}.", "I do not know where."),
    ),
}  # fmt: skip
GOOD_SHARE = 0.2  # of the cold start's answers that are like a reference


# ---------------------------------------------------------------- prompts


def fillings(level: str, split: str) -> list[dict]:
    """All ways to fill a level's instruction; every fifth is held out for eval."""
    if level not in LEVELS:
        raise BadInput(f"there is no level {level!r}; levels are {', '.join(LEVELS)}")
    words = {"name": NAMES, "thing": THINGS, "place": PLACES}
    used = [name for name in words if f"{{{name}}}" in LEVELS[level][0]]
    found = [dict(zip(used, values)) for values in itertools.product(*(words[name] for name in used))]
    return [one for one in found if (zlib.crc32(json.dumps(one).encode()) % 5 == 0) == (split == "eval")]


def read_prompts(split: dict, prompts: dict, name: str, seed: int) -> Iterator[dict]:
    """`count` instructions of each level, from a seed; or those of a pool."""
    if split["file"]:
        yield from pool(split, prompts["ref_models"])
        return
    for level, count in split["count"].items():
        available = fillings(level, name)
        check_count(name, level, count, len(available), "instructions")
        for words in random.Random(f"{seed}.{name}.{level}").sample(available, count):
            question, texts, _ = LEVELS[level]
            references = [text.format(**words) for text in texts]
            if name != "eval":  # figures stay comparable
                references = references[: prompts["references"]]
            yield prompt(question.format(**words), references, level)


def pool(split: dict, ref_models: list[str]) -> Iterator[dict]:
    """The instructions of a pool, with the chosen models' outputs as references; a row that lacks one is a reject."""
    wanted = [f"ref_output_{model}" for model in ref_models]
    for number, record in enumerate(read_source(split["file"], "train")):
        if split["limit"] and number == split["limit"]:
            return
        if number == 0 and (absent := [name for name in wanted if name not in record]):
            known = [name.removeprefix("ref_output_") for name in record if name.startswith("ref_output_")]
            right = f"prompts.ref_models may be {', '.join(known)}" if known else f"its columns are {', '.join(record)}"
            raise BadInput(f"{split['file']}: has no {absent[0]!r}, the references by that model; {right}")
        question, fault = asked(record)
        references = [record.get(name) for name in wanted]
        absent = [name for name, text in zip(wanted, references) if not (isinstance(text, str) and text.strip())]
        fault = fault or (f"no {absent[0]}" if absent else None)
        made = prompt(question, references, str(record.get("source") or "pool")) if question else {"question": None}
        made |= {"id": str(record.get("id") or record_id(str(question)))}
        yield made | ({"fault": fault} if fault else {})


def asked(record: dict) -> tuple[str | None, str | None]:
    """(the instruction of a pool's record, what is wrong with it): the one message by the user, or `prompt`."""
    try:
        messages = check_messages(record["messages"], "messages") if record.get("messages") else None
    except Reject as reject:
        return None, str(reject)
    texts = [one["content"] for one in messages if one["role"] == "user"] if messages else [record.get("prompt")]
    if len(texts) != 1 or not isinstance(texts[0], str):
        return None, "an instruction is one message by the user, or `prompt`, as text"
    return texts[0], None


def prompt(question: str, references: list[str], level: str) -> dict:
    texts = json.dumps(references, ensure_ascii=False)
    return {"id": record_id(question), "question": question, "answer": texts, "level": level}


def worked_examples(cold_start: dict, seed: int) -> Iterator[dict]:
    """Instructions with answers, few of them good; or worked solutions from a file."""
    if cold_start["file"]:
        yield from math.worked_examples(cold_start, seed)
        return
    rng = random.Random(f"{seed}.cold_start")
    if odd := [level for level, count in cold_start["count"].items() if not isinstance(count, int)]:
        raise BadInput(f"cold_start.count.{odd[0]}: give one number, how many examples there are")
    order = [level for level, count in cold_start["count"].items() for _ in range(count)]
    rng.shuffle(order)
    places = {level: fillings(level, "train") for level in cold_start["count"]}
    for level in order:
        question, good, weak = LEVELS[level]
        words = rng.choice(places[level])
        text = rng.choice(good if rng.random() < GOOD_SHARE else weak).format(**words)
        yield {"question": question.format(**words), "pieces": [(f" {text}", True)], "trigger": "auto"}


# ---------------------------------------------------------------- grading


def grade(record: dict, run: Callable[[str], dict], reward: str = "bleu", model: str | None = None) -> dict:
    """`parts`, what the reward of that name is made of; and, for the figures, BLEU and ROUGE-L."""
    answer, references = answer_of(record["solution"]), json.loads(record["correct"])
    return {
        "parts": rewards.parts(reward, model, answer, references, record),
        "bleu": rewards.bleu(answer, references, record),
        "rouge_l": rewards.rouge(answer, references, record),
    }


def tally(records: list[dict], earlier: list[dict]) -> dict[str, float]:
    """The figures, and the mean of each of the reward's parts."""
    return figures(records) | {
        f"reward {name}": sum(record["parts"][name] for record in records) / len(records)
        for name in records[0]["parts"]
    }


def construct_meta(records: list[dict], dedup: bool) -> dict[str, dict]:
    """As `core/groups.py`; a reward of several parts is in units of their spread among the question's answers."""
    asked: dict[str, list[dict]] = {}
    for record in records:
        asked.setdefault(record["question"], []).append(record)
    values = {question: rewards.combined([one["parts"] for one in group]) for question, group in asked.items()}
    rewarded = [one | {"reward": value} for key, group in asked.items() for one, value in zip(group, values[key])]
    return groups.construct_meta(rewarded, dedup)


# ---------------------------------------------------------------- evaluation


def summarise(records: list[dict]) -> dict:
    """The means of FIGURES over greedy answers, and by level. distinct_2: different pairs of tokens over all pairs;
    win_rate: share of answers with more BLEU than the round before's, a tie counting as half; after it that of
    ROUGE-L, of what the reward is made of, and by the judge, if there is one. Round 0 has none."""
    return math.by_level(records, figures)


def figures(records: list[dict]) -> dict:
    count = max(1, len(records))
    split = [tokens_of(record["solution"]) for record in records]
    pairs = [pair for tokens in split for pair in itertools.pairwise(tokens)]
    return {
        "bleu": sum(record["bleu"] for record in records) / count,
        "rouge_l": sum(record["rouge_l"] for record in records) / count,
        "distinct_2": len(set(pairs)) / max(1, len(pairs)),
        "length": sum(map(len, split)) / count,
        "n": len(records),
    } | win_rates([record for record in records if record.get("before")])


def win_rates(records: list[dict]) -> dict[str, float]:
    if not records:
        return {}
    metrics = {"win_rate": lambda r: r["bleu"], "win_rate rouge_l": lambda r: r["rouge_l"]}
    metrics |= {f"win_rate {name}": lambda r, name=name: r["parts"][name] for name in records[0]["parts"]}
    wins = lambda metric, r: (metric(r) > metric(r["before"])) + (metric(r) == metric(r["before"])) / 2  # noqa: E731
    found = {name: sum(wins(metric, r) for r in records) / len(records) for name, metric in metrics.items()}
    verdicts = [record["judged"] for record in records if record.get("judged") is not None]
    return found | ({"win_rate judge": sum(verdicts) / len(verdicts)} if verdicts else {})
