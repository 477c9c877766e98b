"""The score of a reward model with one output, such as Skywork-Reward."""

from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.templates import chat_variables
from workflow_scripts.rewards import Reward

NEEDS_MODEL = True


def make(path: str) -> Reward:
    """Return a reward that scores the answer as an assistant's turn after the question, whatever the references are.

    Raise BadInput if the model has more than one output or no chat template.
    """
    import torch

    from workflow_scripts.rewards._models import load_model

    model, tokenizer = load_model("AutoModelForSequenceClassification", path)
    if model.config.num_labels != 1:
        raise BadInput(f"reward_model {path}: has {model.config.num_labels} outputs, but a reward model has one")
    if not tokenizer.chat_template:
        raise BadInput(f"reward_model {path}: its tokenizer has no chat template")

    @torch.inference_mode()
    def score(answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
        turns = [{"role": "user", "content": record["question"]}, {"role": "assistant", "content": answer}]
        encoded = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True, **chat_variables())
        inputs = encoded.to(model.device)
        return model(**inputs).logits[0, 0].float().item()

    return score
