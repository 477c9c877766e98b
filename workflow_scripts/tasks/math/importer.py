"""Answers in AutoCode's pickle format, with its field names."""

from typing import Any

from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.math.conversation import TRIGGERS
from workflow_scripts.tasks.math.prompts import as_text

AUTOCODE_FIELDS = {
    "question": "question",
    "answer": "solution",
    "reference": "correct",
    "prompt_text": "req",
    "level": "task",
}


class Importer(defaults.Importer):
    """Reads records with question, solution, correct, req and task."""

    def is_foreign_format(self, record: dict[str, Any]) -> bool:
        return "solution" in record or "correct" in record

    def convert(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record with this project's names. The question loses its trigger, which becomes a field."""
        converted = {name: record[original] for name, original in AUTOCODE_FIELDS.items() if original in record}
        question = converted.get("question")

        if isinstance(question, str):
            trigger = next((name for name, text in TRIGGERS.items() if question.endswith(text)), "auto")
            converted["trigger"] = trigger
            converted["question"] = question.removesuffix(TRIGGERS.get(trigger, ""))
        if "reference" in converted:
            converted["reference"] = as_text(converted["reference"])
        if record.get("match"):
            converted["stored_verdict"] = bool(record["match"][0]["res"])

        return converted
