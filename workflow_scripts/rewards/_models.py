"""Loading the models that compute rewards, and what they read."""

from typing import Any

import torch

from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.records import Message
from workflow_scripts.core.templates import chat_variables

UNLIMITED = 10**9  # tokenizers without a limit have a larger number


def load_model(loader: str, path: str):
    """Return (model, tokenizer) of a folder or a name on the hub, on the GPU if there is one.

    `loader` is the name of a class of transformers, such as "AutoModel".
    """
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = getattr(transformers, loader).from_pretrained(path, dtype="auto").to(device).eval()
    return model, AutoTokenizer.from_pretrained(path)


def prepare_for_batches(model: Any, tokenizer: Any) -> int:
    """Let a sequence classifier read padded batches, and return how many tokens its context has."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:  # decoders read the score at the last token that is no padding
        model.config.pad_token_id = tokenizer.pad_token_id

    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    return min((limit for limit in limits if limit and limit < UNLIMITED), default=UNLIMITED)


def encode_answer(tokenizer: Any, messages: list[Message]) -> dict[str, Any]:
    """Return the tokens of a conversation that ends with an answer.

    It is rendered by the tokenizer's chat template, or, if there is none, encoded as a pair of texts: what comes before
    the answer, and the answer.
    """
    if tokenizer.chat_template:
        return dict(tokenizer.apply_chat_template(messages, return_dict=True, **chat_variables()))

    before = "\n\n".join(message["content"] for message in messages[:-1])
    return dict(tokenizer(before, messages[-1]["content"]))
