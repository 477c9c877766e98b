"""Rewards that a model gives: a reward model's score, and BERTScore. Models are folders or names on the hub."""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import torch

from workflow_scripts.core.records import BadInput

Reward = Callable[[str, Sequence[str], dict], float]


def _loaded(loader: str, path: str, **options):
    """(model, tokenizer), on the GPU where there is one."""
    import transformers

    from workflow_scripts.core.pretrained import AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = getattr(transformers, loader).from_pretrained(path, dtype="auto", **options).to(device).eval()
    return model, AutoTokenizer.from_pretrained(path)


@cache
def rm(path: str) -> Reward:
    """A reward model with one output (Skywork-Reward and its like): its score of the answer, as an assistant's turn
    after the question, whatever the references. BadInput if it has more outputs or no chat template."""
    model, tokenizer = _loaded("AutoModelForSequenceClassification", path)
    if model.config.num_labels != 1:
        raise BadInput(f"reward_model {path}: has {model.config.num_labels} outputs; a reward model has one")
    if not tokenizer.chat_template:
        raise BadInput(f"reward_model {path}: its tokenizer has no chat template")

    @torch.inference_mode()
    def score(answer: str, references: Sequence[str], record: dict) -> float:
        turns = [{"role": "user", "content": record["question"]}, {"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True).to(model.device)
        return model(**ids).logits[0, 0].float().item()

    return score


@cache
def bertscore(path: str) -> Reward:
    """BERTScore's F1 (Zhang et al. 2020, eq. 1 to 3, without idf or rescaling) against the best reference.

    Tokens are compared by their states five sixths up the encoder, which is layer 5 of DistilBERT, the original's.
    """
    model, tokenizer = _loaded("AutoModel", path)
    layer = round(model.config.num_hidden_layers * 5 / 6)

    @lru_cache(10_000)
    @torch.inference_mode()
    def states(text: str) -> torch.Tensor:
        """Unit vectors (tokens, width) of a text's tokens, without those that the tokenizer adds."""
        ids = tokenizer(text, return_tensors="pt", truncation=True, return_special_tokens_mask=True).to(model.device)
        own = ids.pop("special_tokens_mask")[0] == 0
        if not own.any():
            return torch.zeros(0, model.config.hidden_size)
        found = model(**ids, output_hidden_states=True).hidden_states[layer][0, own]
        return torch.nn.functional.normalize(found.float(), dim=-1).cpu()

    def score(answer: str, references: Sequence[str], record: dict) -> float:
        return max(_f1(states(answer) @ states(reference).T) for reference in references)

    return score


def _f1(similarity: torch.Tensor) -> float:
    """Of greedy matching: cosines (answer's tokens, reference's tokens)."""
    if not similarity.numel():
        return 0.0
    precision, recall = similarity.amax(1).mean(), similarity.amax(0).mean()
    return (2 * precision * recall / (precision + recall)).item()
