"""Sentence BLEU as BLEUBERI rewards it (arXiv 2505.11080): Hugging Face evaluate's "bleu" with smooth=True, but fast.

The formula (tensorflow/nmt, scripts/bleu.py): tokens by 13a. For each order n from 1 to 4, p_n = (m_n + 1) / (c_n + 1),
where c_n counts the answer's n-grams and m_n those that occur in a reference, each at most as often as in the reference
that has it most often. BLEU = (p_1 p_2 p_3 p_4)^(1/4) · min(1, exp(1 - r / c)) with the answer's length c and the
shortest reference's length r. An empty answer has 0. Nothing is downloaded.
"""

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import chain, repeat
from typing import Any

import numpy as np

from workflow_scripts.rewards import Reward

PACKAGES = ("sacrebleu",)

ORDERS = 4
NONE = np.iinfo(np.int64).max  # greater than the id of any n-gram


def make(model: str | None = None) -> Reward:
    return bleu


def bleu(answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
    return sentence_bleu(answer, references)


def sentence_bleu(answer: str, texts: Sequence[str]) -> float:
    """Return the BLEU, from 0 to 1, of a text against one or more references."""
    tokens = tokens_of(answer)
    if not tokens:
        return 0.0

    known = references(tuple(texts))
    length = len(tokens)
    logs = [math.log((m + 1) / (max(0, length - n) + 1)) for n, m in enumerate(known.matches(tokens))]
    return math.exp(sum(logs) / ORDERS + min(0.0, 1 - known.shortest / length))


@lru_cache(maxsize=1024)
def references(texts: tuple[str, ...]) -> "References":
    """Return a prompt's references, cached because a round has several answers to each prompt."""
    return References(texts)


class References:
    """The n-grams of a prompt's references, encoded as integers, with their maximum count over references.

    The id of a token is its position among the references' distinct tokens, from 1. The id of a longer n-gram is
    (position of its prefix, from 1) · base + id(last token). 0 stands for what is in no reference.
    """

    def __init__(self, texts: Sequence[str]):
        split = [tokens_of(text) for text in texts]
        self.shortest = min(map(len, split))
        self.ids = {token: number for number, token in enumerate(dict.fromkeys(chain(*split)), 1)}
        self.base = len(self.ids) + 1
        self.orders: list[tuple[np.ndarray, np.ndarray]] = []  # per order: sorted ids, and their maximum counts

        encoded = codes = [self._encode(tokens) for tokens in split]
        for order in range(1, ORDERS + 1):
            known, places = np.unique(np.concatenate(codes), return_inverse=True)
            places = np.split(places, np.cumsum([len(code) for code in codes])[:-1])
            counts = [np.bincount(place, minlength=len(known)) for place in places]
            self.orders.append((np.append(known, NONE), np.max(counts, axis=0)))
            codes = [
                (place + 1)[: len(text[order:])] * self.base + text[order:] for place, text in zip(places, encoded)
            ]

    def _encode(self, tokens: list[str]) -> np.ndarray:
        return np.fromiter(map(self.ids.get, tokens, repeat(0)), np.int64, len(tokens))

    def matches(self, tokens: list[str]) -> list[int]:
        """Return the clipped matches by order. An n-gram is looked up only if its prefix is in a reference."""
        text = self._encode(tokens)
        codes = text
        ends = np.arange(len(text))
        matches = []

        for known, most in self.orders:
            places = known.searchsorted(codes)
            is_known = known[places] == codes
            places = places[is_known]
            ends = ends[is_known] + 1
            matches.append(int(np.minimum(np.bincount(places, minlength=len(most)), most).sum()))

            if len(ends) and ends[-1] == len(text):
                places = places[:-1]
                ends = ends[:-1]
            codes = (places + 1) * self.base + text[ends]

        return matches


# ---------------------------------------------------------------- tokens


def tokens_of(text: str) -> list[str]:
    """Return a text's tokens by WMT's mteval-v13a, word by word, since its rules never look beyond white space."""
    tokens: list[str] = []

    for word in text.replace("<skipped>", "").replace("-\n", "").split():
        if word.isalnum():
            tokens.append(word)
        else:
            tokens += _tokens_of_word(word)

    return tokens


@lru_cache(maxsize=2**16)
def _tokens_of_word(word: str) -> list[str]:
    return _tokenizer()(word).split()


@cache
def _tokenizer():
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a  # imported here because a login node may lack it

    return Tokenizer13a()
