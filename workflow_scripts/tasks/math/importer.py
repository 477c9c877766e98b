"""AutoCode's pickles, with its field names: graded results, meta files and offline data."""

from collections.abc import Mapping
from typing import Any, ClassVar

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import record_id
from workflow_scripts.core.imports import require
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.math.conversation import TRIGGERS
from workflow_scripts.tasks.math.prompts import as_text
from workflow_scripts.tasks.math.selection import OTHER, PATHS

RESULT_FIELDS = {
    "question": "question",
    "answer": "solution",
    "reference": "correct",
    "prompt_text": "req",
    "level": "task",
}
META_FIELDS = {"task": str, "correct": (str, int, float, list), "resps": dict}
RESPONSE_FIELDS = {"text": str, "match": (bool, int, list)}
ROW_FIELDS = {"qid": str, "type": str, "instruction": str, "output": str, "neg": (bool, int)}


class Importer(defaults.Importer):
    """Reads AutoCode's records too."""

    right: ClassVar[float | None] = 1.0
    known: ClassVar[Mapping[str, str]] = {
        "results": f"{defaults.Importer.known['results']} and AutoCode's (question, solution, correct, req, task)",
        "meta": f"{defaults.Importer.known['meta']} and AutoCode's ({{question: {{req, task, correct, resps}}}})",
        "rows": f"{defaults.Importer.known['rows']} and AutoCode's ({', '.join(ROW_FIELDS)}, req, source)",
    }

    # ------------------------------------------------------------ results

    def is_foreign_format(self, record: dict[str, Any]) -> bool:
        return "solution" in record or "correct" in record

    def convert(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record with this project's names. The question loses its trigger, which becomes a field."""
        converted = {name: record[original] for name, original in RESULT_FIELDS.items() if original in record}
        question = converted.get("question")

        if isinstance(question, str):
            trigger = next((name for name, text in TRIGGERS.items() if question.endswith(text)), "auto")
            converted["trigger"] = trigger
            converted["question"] = question.removesuffix(TRIGGERS.get(trigger, ""))
        if "reference" in converted:
            converted["reference"] = as_text(converted["reference"])
        if record.get("match"):
            converted["stored_verdict"] = is_match(record["match"])

        return converted

    # ------------------------------------------------------------ meta files

    def is_foreign_meta(self, entry: dict[str, Any]) -> bool:
        return "resps" in entry

    def convert_meta(self, question: str, entry: dict[str, Any], version: str, where: str) -> dict[str, Any]:
        """Return the entry with its answers on both paths, and AutoCode's own counts of right and all answers."""
        require(entry, META_FIELDS, where, self.known["meta"])
        if unknown := [name for name in entry["resps"] if name not in PATHS]:
            raise BadInput(f"{where}: resps should have {' and '.join(PATHS)}, found {unknown[0]!r}")

        answers = []
        for path in PATHS:
            for number, response in enumerate(entry["resps"].get(path) or []):
                place = f"{where}, response {number} of {path}"
                require(response, RESPONSE_FIELDS, place, self.known["meta"])
                is_native = bool(response.get("native", True))
                answers.append(
                    {
                        "answer": response["text"],
                        "reward": float(is_match(response["match"])),
                        "path": path,
                        "trigger": "auto" if version == "auto" else path if is_native else OTHER[path],
                        "prompt_text": response.get("req") or entry.get("req"),
                    }
                )

        return {
            "question": question,
            "reference": as_text(entry["correct"]),
            "level": entry["task"],
            "prompt_text": entry.get("req"),
            "answers": answers,
            **self._counts(entry, answers, where),
        }

    def _counts(self, entry: dict[str, Any], answers: list[dict[str, Any]], where: str) -> dict[str, dict[str, int]]:
        """Return right and total by path: as stored (nc and nt), or counted where they are not."""
        right = {}
        total = {}

        for path in PATHS:
            rewards = [answer["reward"] for answer in answers if answer["path"] == path]
            right[path] = entry.get(f"{path}_nc", round(sum(rewards)))
            total[path] = entry.get(f"{path}_nt", len(rewards))
            if not (isinstance(right[path], int) and isinstance(total[path], int) and 0 <= right[path] <= total[path]):
                raise BadInput(
                    f"{where}: {path}_nc {right[path]!r} and {path}_nt {total[path]!r} should be the numbers of right "
                    "and of all answers"
                )

        return {"right": right, "total": total}

    def merge_meta(self, entry: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        counts = {name: {path: entry[name][path] + other[name][path] for path in PATHS} for name in ("right", "total")}
        return super().merge_meta(entry, other) | counts

    # ------------------------------------------------------------ offline data

    def is_foreign_row(self, record: dict[str, Any]) -> bool:
        return "qid" in record and "instruction" in record

    def convert_row(self, record: dict[str, Any], where: str) -> dict[str, Any]:
        require(record, ROW_FIELDS, where, self.known["rows"])
        path, _, rest = record["type"].partition(".")
        version = rest.partition(".")[0]
        if path not in PATHS or version not in ("auto", "trigger"):
            raise BadInput(
                f"{where}: type should begin with a path and a version, as cot.auto, found {record['type']!r}"
            )

        source = str(record.get("source") or "")
        return {
            "uid": record["qid"],
            "prompt_id": record_id(record["instruction"]),
            "question": record["instruction"],
            "reference": as_text(record.get("gold")),
            "level": source.partition(".")[2].rpartition(".")[0] or "imported",  # {self|explore}.{task}.{path}
            "prompt_text": record.get("req"),
            "trigger": path if version == "trigger" else "auto",
            "answer": record["output"],
            "reward": 0.0 if record["neg"] else 1.0,
            "kind": record["type"],
            "source": source,
            "path": path,
        }


def is_match(match: Any) -> bool:
    """Return AutoCode's verdict: in results a list with one {pred, res}, in meta files true or false."""
    if isinstance(match, list):
        return bool(match) and isinstance(match[0], dict) and bool(match[0].get("res"))
    return bool(match)
