"""Find texts that have much in common: the same words, shared n-grams, and near-duplicates.

`Held` finds what a text shares with texts that are held out. `near_duplicates` finds texts of one set that are almost
equal, by MinHash (Broder 1997) with banding and an exact comparison of the candidates.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from workflow_scripts.core.errors import BadInput

# Chinese and Japanese characters are words of their own. Symbols are words too, because 5! and x^2 depend on them.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")
PUNCTUATION = frozenset(".,;:?\"'“”‘’…")

COMMON = 10  # n-grams in more held-out texts than this, and in more than COMMON_SHARE of them, tell nothing
COMMON_SHARE = 0.01

PERMUTATIONS = 128  # the length of a sketch, at most
RECALL = 0.99  # the chance that a pair at the threshold becomes a candidate, at least
ERROR = 0.15  # four standard deviations of a sketch's estimate
BATCH = 1000  # texts that are sketched at once
MOST_CANDIDATES = 20_000  # of one text; more would take hours


class Overlap(NamedTuple):
    """The text of a set that another text has most in common with."""

    kind: str  # equal: the same words; ngrams: shared n-grams; near: a near-duplicate
    other: str  # the id of that text
    share: float  # from 0 to 1: covered words, or the Jaccard similarity


def words_of(text: str) -> list[str]:
    """Return the words and symbols of a text in lower case, without punctuation."""
    folded = unicodedata.normalize("NFKC", text).lower()
    return [word for word in WORD.findall(folded) if word not in PUNCTUATION]


# ---------------------------------------------------------------- held-out texts


class Held:
    """Held-out texts, with an index of their n-grams."""

    def __init__(self, texts: Mapping[str, str], size: int, coverage: float):
        """Index the texts.

        Args:
            texts: the held-out texts by id.
            size: the number of words in an n-gram.
            coverage: the share of a held-out text's words that shared n-grams must cover.
        """
        self.size = size
        self.coverage = coverage
        self.ids = list(texts)
        self.equal: dict[str, str] = {}  # words → id
        self.places: dict[str, list[tuple[int, int]]] = defaultdict(list)  # n-gram → (number of the text, position)

        for number, (name, text) in enumerate(texts.items()):
            words = words_of(text)
            self.equal.setdefault(" ".join(words), name)
            for position, ngram in enumerate(ngrams(words, size)):
                self.places[ngram].append((number, position))

        self._leave_out_common()
        self.countable = self._countable()

    def _leave_out_common(self) -> None:
        """Forget n-grams that stand in many of the texts, such as an instruction that all questions share."""
        most = max(COMMON, COMMON_SHARE * len(self.ids))

        for ngram, places in list(self.places.items()):
            if len({number for number, _ in places}) > most:
                del self.places[ngram]

    def _countable(self) -> list[int]:
        """Return how many words of each text lie in an n-gram of the index."""
        covered: dict[int, set[int]] = defaultdict(set)
        for places in self.places.values():
            for number, position in places:
                covered[number].update(range(position, position + self.size))

        return [len(covered[number]) for number in range(len(self.ids))]

    def overlap(self, text: str) -> Overlap | None:
        """Return what a text shares with the held-out text that it has most in common with, or None.

        Tulu 3 uses this rule with 8-grams and a coverage of one half (Lambert et al. 2024, arXiv 2411.15124).
        """
        words = words_of(text)
        if name := self.equal.get(" ".join(words)):
            return Overlap("equal", name, 1.0)

        covered: dict[int, set[int]] = defaultdict(set)
        for ngram in ngrams(words, self.size):
            for number, position in self.places.get(ngram, ()):
                covered[number].update(range(position, position + self.size))

        shares = {number: len(places) / self.countable[number] for number, places in covered.items()}
        number = max(shares, key=lambda number: (shares[number], -number), default=None)
        if number is None or shares[number] < self.coverage:
            return None
        return Overlap("ngrams", self.ids[number], round(shares[number], 4))


def ngrams(words: list[str], size: int) -> list[str]:
    """Return the n-grams of a text in order; none if it has fewer words."""
    return [" ".join(words[start : start + size]) for start in range(len(words) - size + 1)]


# ---------------------------------------------------------------- near-duplicates


def near_duplicates(texts: Iterable[tuple[str, str]], similarity: float, size: int) -> Iterator[Overlap | None]:
    """Yield for each text the earlier one that it nearly equals, or None.

    A text that has one is not compared with later ones, so that of several texts that are alike the first one stays.

    Args:
        texts: ids and texts.
        similarity: the least Jaccard similarity of the sets of character n-grams of two texts that are near-duplicates.
        size: the number of characters in such an n-gram.

    Raises:
        BadInput: if one text resembles more than MOST_CANDIDATES others, as texts of one template do.
    """
    from rensa import RMinHash, RMinHashLSH  # type: ignore[attr-defined]  (an extension without stubs)

    rows, bands = banding(similarity)
    index = RMinHashLSH(similarity, rows * bands, bands)
    kept: dict[int, tuple[str, str, Any]] = {}
    number = 0
    stream = iter(texts)

    while batch := list(islice(stream, BATCH)):
        prepared = [" ".join(words_of(text)) for _, text in batch]
        sketches = RMinHash.from_token_sets(
            [list(shingles(text, size)) for text in prepared], num_perm=rows * bands, seed=1
        )

        for (name, _), text, sketch in zip(batch, prepared, sketches):
            candidates = sorted(index.query(sketch))
            if len(candidates) > MOST_CANDIDATES:
                raise BadInput(
                    f"{name} resembles {len(candidates):,} earlier texts in part, as texts of one template do, and "
                    "near-duplicates among so many cannot be told apart in reasonable time: raise the similarity, or "
                    "do not look for near-duplicates"
                )

            duplicate = _closest(text, sketch, [kept[candidate] for candidate in candidates], similarity, size)
            if duplicate is None:
                index.insert(number, sketch)
                kept[number] = (name, text, sketch)
            number += 1
            yield duplicate


def _closest(text: str, sketch: Any, candidates: list[tuple], similarity: float, size: int) -> Overlap | None:
    """Return the candidate that a text is most similar to, if it is similar enough."""
    own = shingles(text, size)
    best: Overlap | None = None

    for name, other, other_sketch in candidates:
        if sketch.jaccard(other_sketch) < similarity - ERROR:
            continue
        share = jaccard(own, shingles(other, size))
        if share >= similarity and (best is None or share > best.share):
            best = Overlap("near", name, round(share, 4))

    return best


def banding(similarity: float) -> tuple[int, int]:
    """Return the rows of a band and the number of bands for a threshold.

    Two texts of similarity s agree in one of b bands of r rows with probability 1 - (1 - s^r)^b. The most rows are
    chosen that find a pair at the threshold with probability RECALL, since more rows mean fewer useless candidates.
    """
    for rows in range(PERMUTATIONS, 1, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - similarity**rows) ** bands >= RECALL:
            return rows, bands
    return 1, PERMUTATIONS


def shingles(text: str, size: int) -> set[str]:
    """Return the character n-grams of a text; a shorter text is one itself."""
    return {text[start : start + size] for start in range(max(1, len(text) - size + 1))}


def jaccard(first: set[str], second: set[str]) -> float:
    """Return the size of the intersection of two sets over that of their union."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)
