"""AutoCode (arXiv 2502.00691): the policy decides for itself whether to reason in text or to write code.

Formats and names follow the original repository (HazekiahWon/AnnonySubmission). Sound where it is broken:
answers are counted before texts are deduplicated (`data.dedup: true` counts as the original), spliced texts and
imported answers are never weighted by a ratio, and a missing meta is said instead of crashing.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator

from workflow_scripts.core import answers
from workflow_scripts.core.advantages import advantages
from workflow_scripts.core.cli import say
from workflow_scripts.core.records import BadInput, normalise, read_records, record_id

MAKES_UP = False  # prompts and worked examples come from files
TRIGGERS = {"cot": "\nLet's reason step by step.\n", "pot": "\nLet's write a program.\n"}
FIGURES = {"accuracy": ("accuracy", ".1%"), "code_share": ("share of answers with code", ".0%")}
GRADED = "match"
STOP = ("```output",)  # the policy writes this, the environment what follows
PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)
OUTPUT = re.compile(r"(?<=```output)\n.*?```\n?", re.DOTALL)
SPLICE = {
    "pot": "\nSorry, the above solution may be incorrect. It's better to write a program.\n",
    "cot": "\nSorry, the above solution may be incorrect. It's better to simply reason step by step.\n",
}


# ---------------------------------------------------------------- prompts


def read_prompts(split: dict, prompts: dict, name: str, seed: int) -> Iterator[dict]:
    """Questions with answers from a file; the original's seed data (q, gold, s) has its keys in the recipe."""
    for prompt in file_prompts(split, prompts, name):
        answer = prompt["answer"]
        if isinstance(answer, list):  # the original's gold_list, and its [text, number]
            answer = answer[0] if answer else None
        yield prompt | {
            "answer": str(answer) if isinstance(answer, (str, int, float)) and answer == answer else None,  # not NaN
        }


def file_prompts(split: dict, prompts: dict, name: str) -> Iterator[dict]:
    """A file's prompts, their answers as they stand there."""
    for number, record in enumerate(read_records(split["file"])):
        if split["limit"] and number == split["limit"]:
            return
        absent = [prompts[key] for key in ("question_key", "answer_key") if prompts[key] not in record]
        if absent and number == 0:  # in the first record the keys are wrong, in a later one the record
            raise BadInput(
                f"{split['file']}, record 1: has no {absent[0]!r}, only {', '.join(map(repr, record))}; "
                "say with prompts.question_key and prompts.answer_key where question and answer stand"
            )
        question = record.get(prompts["question_key"])
        yield {
            "id": record_id(str(question)) if record.get("id") in (None, "") else str(record["id"]),
            "question": question,
            "answer": record.get(prompts["answer_key"]),
            "level": str(record.get("level") or name),
        }


def worked_examples(cold_start: dict, seed: int) -> Iterator[dict]:
    """Questions with worked solutions from a file: {question, pieces: [(text, trained on?)], trigger}."""
    for number, record in enumerate(read_records(cold_start["file"]), 1):
        question, solution = record.get("question", record.get("q")), record.get("solution", record.get("s"))
        if not all(isinstance(text, str) and text.strip() for text in (question, solution)):
            raise BadInput(
                f"{cold_start['file']}, record {number}: needs a question (or q) and a solution (or s) as text, "
                f"found {record!r:.80}"
            )
        yield {"question": question, "pieces": segments(solution), "trigger": "auto"}


# ---------------------------------------------------------------- conversation


def requests(question: str, version: str) -> dict[str, str]:
    """{trigger: text asked}. auto: the question alone, the policy decides; trigger: asked for either path."""
    if version == "trigger":
        return {key: question + text for key, text in TRIGGERS.items()}
    return {"auto": question}


def reply(text: str, run: Callable[[str], dict]) -> str | None:
    """After "```output" the environment runs the last program and writes what it printed."""
    programs = PROGRAM.findall(text)
    if not text.endswith(STOP[0]) or not programs:
        return None
    return f"\n{shown(run(programs[-1]))}\n```\n"


def shown(result: dict) -> str:
    """A program's output as the policy gets to see it: what it printed, or its error's last line."""
    return (result["output"].rstrip("\n") + (f"\n{result['error']}" if result["error"] else "")).strip("\n")


def segments(text: str) -> list[tuple[str, bool]]:
    """An answer that exists only as text: what follows "```output" was not the policy's."""
    pieces, start = [], 0
    for match in OUTPUT.finditer(text):
        pieces += [(text[start : match.start()], True), (match.group(), False)]
        start = match.end()
    return [(piece, sampled) for piece, sampled in [*pieces, (text[start:], True)] if piece]


# ---------------------------------------------------------------- grading


def path_of(text: str) -> str:
    """The path that an answer took: pot (program of thought) or cot (chain of thought)."""
    return "pot" if "```python" in text or "print(" in text else "cot"


def grade(record: dict, run: Callable[[str], dict]) -> dict:
    """`match` [{pred, res}] judges the final answer; `any` whether any attempt in the text was right.

    The final answer is the last one stated after the last program, or that program's output where nothing is.
    """
    text = record["solution"]
    gold = record["correct"][0] if isinstance(record["correct"], list) else record["correct"]
    programs = PROGRAM.findall(text)
    outputs = [shown(run(program)).splitlines()[-1:] for program in programs]
    printed = [line for lines in outputs for line in lines]
    if programs:
        conclusion = OUTPUT.split(text)[-1] if "```output" in text else text.rsplit("```", 1)[-1]
        final = (answers.stated(conclusion) or printed[-1:])[-1:]
    else:
        final = answers.stated(text)[-1:]
    right = any(answers.equal(answer, gold, run) for answer in final)
    attempts = [*answers.stated(text), *printed]
    return {
        "key": path_of(text),
        "match": [{"pred": final if not programs else "".join(final), "res": right}],
        "any": right or any(answers.equal(answer, gold, run) for answer in attempts),
    }


def tally(records: list[dict], earlier: list[dict]) -> dict[str, float]:
    """Shares of all answers: right at the end, right at any attempt, with code; agreement of the second with AutoCode's
    verdicts, where the file had them."""
    stored = [bool(old["match"][0]["res"]) == new["any"] for old, new in zip(earlier, records) if old.get("match")]
    by_end = figures(records)
    return {
        "accuracy": by_end["accuracy"],
        "accuracy_any": sum(record["any"] for record in records) / len(records),
        "code_share": by_end["code_share"],
        "n": len(records),
    } | ({"agreement": sum(stored) / len(stored)} if stored else {})


# ---------------------------------------------------------------- meta and data


def question_of(record: dict) -> str:
    """The raw question: without the trigger text."""
    question = record["question"]
    for trigger in TRIGGERS.values():
        question = question.removesuffix(trigger)
    return question


def construct_meta(records: list[dict], dedup: bool) -> dict[str, dict]:
    """{raw question: {id, req, task, correct, resps: {cot, pot}, cot_nc, cot_nt, pot_nc, pot_nt}}.

    nc and nt count right and all answers of a path; a response is {uid, match, text, logp, req, native, …}.
    native: the path taken is the one that was asked for (always so in auto mode).
    """
    meta: dict[str, dict] = {}
    for record in records:
        text, key, question = record["solution"], record["key"], question_of(record)
        right = bool(record["match"][0]["res"])
        if right and text.count("```") % 2:
            continue  # right, but its code block is never closed
        entry = meta.setdefault(
            question,
            {"id": record["id"], "req": record["req"], "task": record["task"], "correct": record["correct"]}
            | {"resps": {"cot": [], "pot": []}, "cot_nc": 0, "cot_nt": 0, "pot_nc": 0, "pot_nt": 0},
        )
        if dedup and any(text == response["text"] for response in entry["resps"][key]):
            continue
        entry[f"{key}_nc"] += right
        entry[f"{key}_nt"] += 1
        asked = record["trigger"]
        kept = ("uid", "prompt_tokens", "tokens", "mask", "policy", "finish")
        response = {"match": record["match"], "text": text, "logp": None, "req": record["req"]}
        response |= {"native": asked in ("auto", key)} | {name: record[name] for name in kept}
        entry["resps"][key].append(response)
    return meta


def counts(meta: dict[str, dict]) -> dict[str, int]:
    """Right and all answers of each path."""
    return {name: sum(entry[name] for entry in meta.values()) for name in ("cot_nc", "cot_nt", "pot_nc", "pot_nt")}


def accuracies(metas: dict[str, dict], question: str) -> dict[str, float]:
    """Accuracy of each path on a question, pooled over the metas that have it."""
    entries = [meta[question] for meta in metas.values() if question in meta]
    return {
        key: sum(e[f"{key}_nc"] for e in entries) / (sum(e[f"{key}_nt"] for e in entries) + 1e-8)
        for key in ("cot", "pot")
    }


def select(metas: dict[str, dict], settings: dict, seed: int, encode: Callable) -> tuple[list[dict], Counter]:
    """The round's training rows: code only where code is more accurate (the original's E-step).

    Switches in `tag`: `minimal` auto answers alone; `keeptrigger` also triggered ones; `negbetter` half of the
    wrong auto answers become spliced self-corrections; `all` auto answers of both paths, whichever is better.
    Returns rows and counts of what was dropped and why. Each question draws from its own seed.
    """
    rows, dropped = [], Counter()
    questions = sorted({question for meta in metas.values() for question in meta})
    for question in questions:
        accuracy = accuracies(metas, question)
        use = "pot" if accuracy["pot"] > accuracy["cot"] else "cot"
        if accuracy[use] == 0:
            dropped["question never answered right"] += 1
            continue
        rng = random.Random(f"{seed}.{normalise(question)}")
        for version, meta in metas.items():
            if question not in meta or (version == "trigger" and "keeptrigger" not in settings["tag"]):
                continue
            entry = meta[question]
            choose = _select_auto if version == "auto" else _select_trigger
            for key, kind, response, right in choose(entry, use, accuracy, settings, rng, dropped, encode):
                rows.append(_row(question, entry, key, version, kind, response, right))
    return _with_advantages(rows, settings, dropped)


def _select_auto(entry, use, accuracy, settings, rng, dropped, encode):
    """Answers on the better path, right and wrong; with `negbetter`, corrections of half of the wrong ones."""
    both = {key: [r for r in entry["resps"][key] if r["match"][0]["res"]] for key in ("cot", "pot")}
    for key in ("cot", "pot"):
        for response in entry["resps"][key]:
            right = bool(response["match"][0]["res"])
            if not right and "negbetter" in settings["tag"] and rng.random() < 0.5:
                other = "cot" if key == "pot" else "pot"
                if both[other]:
                    yield key, f"{key}negbetter", _spliced(response, rng.choice(both[other]), key, encode), True
                    continue
            if key == use or "all" in settings["tag"].split("_"):
                yield key, "better", response, right
            else:
                dropped[f"auto answer by {key} where {use} is better"] += 1


def _select_trigger(entry, use, accuracy, settings, rng, dropped, encode):
    """At most one answer per path, of those that did as asked; easy ones are thinned out by half."""
    for key in ("cot", "pot"):
        native = [response for response in entry["resps"][key] if response["native"]]
        dropped["triggered answer by the other path"] += len(entry["resps"][key]) - len(native)
        if accuracy[key] > settings["easy_success"] and rng.random() < 0.5:
            dropped["triggered answer to an easy question"] += len(native)
        elif native:
            dropped["further triggered answer"] += len(native) - 1
            response = rng.choice(native)
            yield key, "trigger", response, bool(response["match"][0]["res"])


def _spliced(wrong: dict, right: dict, key: str, encode: Callable) -> dict:
    """A wrong attempt, a word of doubt, and a right answer by the other path: nobody sampled this text."""
    attempt = "\n".join(wrong["text"].split("\n")[:10]) if key == "cot" else wrong["text"]
    other = "cot" if key == "pot" else "pot"
    text = attempt.rstrip("\n") + SPLICE[other] + right["text"].lstrip()
    tokens, mask = encode(segments(text))
    return right | {"uid": f"{wrong['uid']}.modified", "text": text, "tokens": tokens, "mask": mask} | {
        "policy": "foreign", "req": wrong["req"], "prompt_tokens": wrong["prompt_tokens"]
    }  # fmt: skip


def _row(question, entry, key, version, kind, response, right) -> dict:
    return {
        "qid": response["uid"],
        "req": response["req"],
        "gold": entry["correct"],
        "type": f"{key}.{version}.{kind}",
        "instruction": question,
        "output": response["text"],
        "source": f"{'self' if version == 'auto' else 'explore'}.{entry['task']}.{key}",
        "trigger_value": TRIGGERS[key] if version == "trigger" else "",
        "neg": not right,
        "reward": float(right),
        "logp": None,
    } | {name: response[name] for name in ("prompt_tokens", "tokens", "mask", "policy", "finish")}


def _with_advantages(rows, settings, dropped) -> tuple[list[dict], Counter]:
    rewards, groups = [row["reward"] for row in rows], [row["instruction"] for row in rows]
    values = advantages(rewards, groups, settings["advantage"], 1.0, settings["advantage_clip"])
    kept = [row | {"advantage": value} for row, value in zip(rows, values) if value is not None]
    dropped["answer in a group without variance"] += len(rows) - len(kept)
    names = Counter(row["qid"] for row in kept)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise BadInput(f"qid {repeated[0]} occurs {names[repeated[0]]} times; ids of answers must be unique")
    return kept, +dropped


# ---------------------------------------------------------------- evaluation


def summarise(records: list[dict]) -> dict:
    """{accuracy, code_share, n, by_level: {level: the same}} of greedy answers."""
    return by_level(records, figures)


def by_level(records: list[dict], figures: Callable[[list[dict]], dict]) -> dict:
    """The figures of all answers, and of those to each level's questions."""
    if not records:
        say("no answers to count")
    levels = sorted({record["level"] for record in records})
    return figures(records) | {"by_level": {k: figures([r for r in records if r["level"] == k]) for k in levels}}


def figures(records: list[dict]) -> dict:
    count = max(1, len(records))
    return {
        "accuracy": sum(bool(r["match"][0]["res"]) for r in records) / count,
        "code_share": sum(r["key"] == "pot" for r in records) / count,
        "n": len(records),
    }
