"""Rewarded answers in groups by question, and what a round of GRPO trains on: advantages within each group."""

from collections import Counter
from collections.abc import Callable

from workflow_scripts.core.advantages import advantages


def construct_meta(records: list[dict], dedup: bool, verdict: str = "reward") -> dict[str, dict]:
    """{question: {id, req, task, correct, resps: [{uid, reward (or another verdict), text, …}]}}"""
    meta: dict[str, dict] = {}
    for record in records:
        shared = {name: record[name] for name in ("id", "req", "task", "correct")}
        answers = meta.setdefault(record["question"], shared | {"resps": []})["resps"]
        if dedup and any(record["solution"] == answer["text"] for answer in answers):
            continue
        kept = ("uid", verdict, "prompt_tokens", "tokens", "mask", "policy", "finish")
        answers.append({"text": record["solution"]} | {name: record[name] for name in kept})
    return meta


def counts(meta: dict[str, dict]) -> dict[str, int]:
    return {"answers": sum(len(entry["resps"]) for entry in meta.values())}


def select(metas: dict[str, dict], settings: dict, seed: int, encode: Callable) -> tuple[list[dict], Counter]:
    """All answers, with advantages within a prompt's group; groups without variance are dropped."""
    rows, dropped = [], Counter()
    for question, entry in sorted(metas["auto"].items()):
        for answer in entry["resps"]:
            row = {"qid": answer["uid"], "req": entry["req"], "gold": entry["correct"], "type": "auto"}
            row |= {"instruction": question, "output": answer["text"], "source": f"self.{entry['task']}", "logp": None}
            kept = ("reward", "prompt_tokens", "tokens", "mask", "policy", "finish")
            rows.append(row | {name: answer[name] for name in kept})
    groups = [row["instruction"] for row in rows]
    values = advantages(
        [row["reward"] for row in rows], groups, settings["advantage"], None, settings["advantage_clip"]
    )
    kept = [row | {"advantage": value} for row, value in zip(rows, values) if value is not None]
    dropped["answer in a group without variance"] += len(rows) - len(kept)
    return kept, +dropped
