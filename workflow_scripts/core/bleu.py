"""Sentence BLEU as BLEUBERI rewards it (arXiv 2505.11080): Hugging Face evaluate's "bleu" with smooth=True, fast.

Formula (tensorflow/nmt, scripts/bleu.py): tokens by 13a; for each order n from 1 to 4, p_n = (m_n + 1) / (c_n + 1),
where c_n counts the answer's n-grams and m_n those that occur in a reference, each at most as often as in the reference
that has it most; BLEU = (p_1 p_2 p_3 p_4)^(1/4) · min(1, exp(1 - r / c)) with the answer's length c and the shortest
reference's r. An empty answer has 0. Nothing is downloaded.
"""

import math
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import chain, repeat

import numpy as np

ORDERS = 4
NONE = np.iinfo(np.int64).max  # greater than the number of any n-gram
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@cache
def tokenizer():
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a  # here: a login node may lack it

    return Tokenizer13a()


@lru_cache(maxsize=2**16)
def _tokens_of_word(word: str) -> list[str]:
    return tokenizer()(word).split()


def tokens_of(text: str) -> list[str]:
    """A text's tokens by WMT's mteval-v13a, word by word: its rules never look beyond the white space."""
    tokens: list[str] = []
    for word in text.replace("<skipped>", "").replace("-\n", "").split():
        if word.isalnum():
            tokens.append(word)
        else:
            tokens += _tokens_of_word(word)
    return tokens


class References:
    """The n-grams of a prompt's references as numbers, by order, each with its count in the reference that has it most.

    A token's number is its place among the references' tokens, from 1; that of a longer n-gram is the place of its
    beginning, from 1, times `base`, plus its last token's number. So 0 stands for what no reference has.
    """

    def __init__(self, texts: Sequence[str]):
        split = [tokens_of(text) for text in texts]
        self.shortest = min(map(len, split))
        self.numbers = {token: number for number, token in enumerate(dict.fromkeys(chain(*split)), 1)}
        self.base = len(self.numbers) + 1
        self.orders: list[tuple[np.ndarray, np.ndarray]] = []
        texts = codes = [self._numbers(tokens) for tokens in split]
        for order in range(1, ORDERS + 1):
            known, places = np.unique(np.concatenate(codes), return_inverse=True)
            places = np.split(places, np.cumsum([len(code) for code in codes])[:-1])
            counts = [np.bincount(place, minlength=len(known)) for place in places]
            self.orders.append((np.append(known, NONE), np.max(counts, axis=0)))
            codes = [(place + 1)[: len(text[order:])] * self.base + text[order:] for place, text in zip(places, texts)]

    def _numbers(self, tokens: list[str]) -> np.ndarray:
        return np.fromiter(map(self.numbers.get, tokens, repeat(0)), np.int64, len(tokens))

    def matches(self, tokens: list[str]) -> list[int]:
        """Clipped matches by order; an n-gram is looked for only where its beginning was found."""
        found, text = [], self._numbers(tokens)
        codes, ends = text, np.arange(len(text))
        for known, most in self.orders:
            places = known.searchsorted(codes)
            hit = known[places] == codes
            places, ends = places[hit], ends[hit] + 1
            found.append(int(np.minimum(np.bincount(places, minlength=len(most)), most).sum()))
            if len(ends) and ends[-1] == len(text):
                places, ends = places[:-1], ends[:-1]
            codes = (places + 1) * self.base + text[ends]
        return found


@lru_cache(maxsize=1024)
def references(texts: tuple[str, ...]) -> References:
    """Cached: a round has several answers to a prompt."""
    return References(texts)


def answer_of(text: str) -> str:
    """What is judged: the text inside <answer>, where there is such a tag."""
    found = ANSWER.search(text)
    return (found[1] if found else text).strip()


def sentence_bleu(answer: str, texts: Sequence[str]) -> float:
    """BLEU from 0 to 1 of a text against one or more references."""
    tokens, known = tokens_of(answer), references(tuple(texts))
    if not tokens:
        return 0.0
    length = len(tokens)
    logs = [math.log((m + 1) / (max(0, length - n) + 1)) for n, m in enumerate(known.matches(tokens))]
    return math.exp(sum(logs) / ORDERS + min(0.0, 1 - known.shortest / length))
