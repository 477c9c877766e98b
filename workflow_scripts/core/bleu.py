"""Sentence BLEU as BLEUBERI rewards it (arXiv 2505.11080): Hugging Face evaluate's "bleu" with smooth=True, fast.

Formula (tensorflow/nmt, scripts/bleu.py): tokens by 13a; for each order n from 1 to 4, p_n = (m_n + 1) / (c_n + 1),
where c_n counts the answer's n-grams and m_n those that occur in a reference, each at most as often as in the reference
that has it most; BLEU = (p_1 p_2 p_3 p_4)^(1/4) · min(1, exp(1 - r / c)) with the answer's length c and the shortest
reference's r. An empty answer has 0. Nothing is downloaded.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

ORDERS = 4
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@cache
def tokenizer():
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a  # here: a login node may lack it

    return Tokenizer13a()


def tokens_of(text: str) -> list[str]:
    """A text's tokens by WMT's mteval-v13a."""
    return tokenizer()(text).split()


def grams(tokens: list[str], order: int) -> Iterator[tuple[str, ...]]:
    return zip(*(tokens[start:] for start in range(order)))


class References:
    """The n-grams of a prompt's references: by order, how often the reference that has one most has it."""

    def __init__(self, texts: Sequence[str]):
        split = [tokens_of(text) for text in texts]
        self.shortest = min(map(len, split))
        self.most = [self._most([Counter(grams(tokens, order)) for tokens in split]) for order in range(1, ORDERS + 1)]

    @staticmethod
    def _most(counters: list[Counter]) -> dict[tuple, int]:
        most: dict[tuple, int] = {}
        for counts in counters:
            shared = [(gram, max(counts[gram], most[gram])) for gram in counts.keys() & most.keys()]
            most = {**most, **counts}
            most.update(shared)
        return most

    def matches(self, tokens: list[str]) -> list[int]:
        """Clipped matches by order; an n-gram is looked for only where its beginning was found."""
        found, places = [], range(len(tokens))
        for order, most in enumerate(self.most, 1):
            here = [(place, gram) for place in places if (gram := tuple(tokens[place : place + order])) in most]
            places = [place for place, _ in here]
            found.append(sum(min(count, most[gram]) for gram, count in Counter(gram for _, gram in here).items()))
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
