"""The output of any model that AutoModelForSequenceClassification loads, computed in batches.

A model with one output is a reward model: its logit is the value. Of a classifier with several outputs, `label` names
the one whose probability is the value, by its name or number. The question and the answer are rendered by the
tokenizer's chat template, or, if it has none, encoded as a pair of texts. Answers that exceed the model's context are
undecided.
"""

from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.records import Message
from workflow_scripts.rewards._parts import Value, decided, undecided

NEEDS_MODEL = True
OPTIONS = {"label": "only", "batch_size": 16}  # label `only`: of a model with one output


def make(path: str | None = None, options: dict[str, Any] = OPTIONS) -> "Scorer":
    if path is None:
        raise BadInput("reward reward_model: needs a model (config key reward_model, or `model` of the part)")
    return Scorer(path, options["label"], options["batch_size"])


class Scorer:
    """Scores answers in batches of similar length."""

    def __init__(self, path: str, label: str, batch_size: int):
        from workflow_scripts.rewards._models import load_model, prepare_for_batches

        self.model, self.tokenizer = load_model("AutoModelForSequenceClassification", path)
        self.batch_size = batch_size
        self.output = self._output(path, label)

        self.window = prepare_for_batches(self.model, self.tokenizer)

    def _output(self, path: str, label: str) -> int | None:
        """Return the number of the output that is the value; None for a model with one output."""
        names = {int(number): name for number, name in self.model.config.id2label.items()}
        if len(names) == 1:
            return None

        for number, name in names.items():
            if label in (name, str(number)):
                return number
        listed = ", ".join(f"{number} ({name})" for number, name in names.items())
        raise BadInput(f"reward_model {path}: has several outputs; choose one with options.label: {listed}")

    def __call__(self, answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
        [value] = self.batch([(answer, record)])
        if value["value"] is None:
            raise BadInput(f"record {record['uid']}: {value['reason']}")
        return value["value"]

    def batch(self, answers: Sequence[tuple[str, dict[str, Any]]]) -> list[Value]:
        """Return the value of each answer, given with its record."""
        encoded = [self._encode(record, answer) for answer, record in answers]
        results: list[Value] = [{}] * len(encoded)

        fitting = []
        for number, inputs in enumerate(encoded):
            tokens = len(inputs["input_ids"])
            if tokens > self.window:
                results[number] = undecided(f"{tokens} tokens exceed the reward model's context of {self.window}")
            else:
                fitting.append(number)

        fitting.sort(key=lambda number: len(encoded[number]["input_ids"]))
        for start in range(0, len(fitting), self.batch_size):
            numbers = fitting[start : start + self.batch_size]
            for number, value in zip(numbers, self._score([encoded[number] for number in numbers])):
                results[number] = decided(value)

        return results

    def _encode(self, record: dict[str, Any], answer: str) -> dict[str, Any]:
        """Return the tokens of a question, or of the conversation that asks it, with its answer."""
        from workflow_scripts.rewards._models import encode_answer

        before: list[Message] = record.get("messages") or [{"role": "user", "content": record["question"]}]
        return encode_answer(self.tokenizer, [*before, {"role": "assistant", "content": answer}])

    def _score(self, encoded: list[dict[str, Any]]) -> list[float]:
        """Return the values of a batch."""
        import torch

        padded = self.tokenizer.pad(encoded, return_tensors="pt", padding_side="right").to(self.model.device)
        with torch.inference_mode():
            logits = self.model(**padded).logits.float()

        if self.output is None:
            return logits[:, 0].tolist()
        if self.model.config.problem_type == "multi_label_classification":
            return logits.sigmoid()[:, self.output].tolist()
        return logits.softmax(-1)[:, self.output].tolist()
