"""Near-duplicates by MinHash: recall and precision on planted pairs, time and memory.

    python -m benchmarks.rewards duplicates
    python -m benchmarks.rewards.duplicates --texts 1000000    # time and memory of a million

The texts are questions of 20 to 80 words that are as frequent as Zipf's law has it. A planted near-duplicate is a copy
with one word in 25 replaced, left out or added, other capitals and other punctuation. As many copies have one word in
five replaced: they resemble their original, but count as other questions.
"""

import argparse
import random
import resource
from time import perf_counter
from typing import Any

from workflow_scripts.core.overlaps import near_duplicates

TEXTS = 100_000
PLANTED = 5_000
SIMILARITY = 0.8
SHINGLE = 5

Texts = list[tuple[str, str]]  # id and text
Pairs = set[tuple[str, str]]  # ids of a text and of the earlier text that it nearly equals


def vocabulary(rng: random.Random) -> tuple[list[str], list[float]]:
    """Return 20,000 made-up words, and their cumulative frequencies by Zipf's law."""
    syllables = [
        first + second for first in "bcdfghklmnprstvw" for second in ("a", "e", "i", "o", "u", "ar", "en", "is")
    ]
    words = ["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 3, 4)))) for _ in range(20_000)]
    total = 0.0
    cumulative = [total := total + 1 / (place + 10) for place in range(len(words))]
    return words, cumulative


def edited(words: list[str], edits: int, rng: random.Random, new: list[str]) -> str:
    """Return a text with so many words replaced, left out or added, with other capitals and punctuation."""
    words = list(words)
    for word in new[:edits]:
        place = rng.randrange(len(words))
        words[place : place + 1] = rng.choice(([word], [], [words[place], word]))
    return " ".join(words).capitalize() + "?"


def planted(number: int, pairs: int, rng: random.Random) -> tuple[Texts, Pairs]:
    """Return texts in random order, and the pairs among them that are near-duplicates."""
    vocabulary_words, cumulative = vocabulary(rng)

    def draw(count: int) -> list[str]:
        return rng.choices(vocabulary_words, cum_weights=cumulative, k=count)

    originals = [draw(rng.randint(20, 80)) for _ in range(number - 2 * pairs)]
    texts = [(f"o{i}", " ".join(words)) for i, words in enumerate(originals)]
    copied = rng.sample(range(len(originals)), 2 * pairs)

    for i in copied[:pairs]:
        edits = max(1, len(originals[i]) // 25)
        texts.append((f"near{i}", edited(originals[i], edits, rng, draw(edits))))
    for i in copied[pairs:]:
        words = [new if rng.random() < 0.2 else word for word, new in zip(originals[i], draw(len(originals[i])))]
        texts.append((f"other{i}", " ".join(words)))

    rng.shuffle(texts)
    place = {name: number for number, (name, _) in enumerate(texts)}
    ordered = (sorted((f"o{i}", f"near{i}"), key=lambda name: -place[name]) for i in copied[:pairs])
    return texts, {(later, earlier) for later, earlier in ordered}


def wilson(hits: int, total: int) -> list[float]:
    """Return Wilson's 95 % interval of a share."""
    z = 1.959964
    share = hits / total
    centre = share + z * z / (2 * total)
    half = z * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    scale = 1 + z * z / total
    return [(centre - half) / scale, (centre + half) / scale]


def search(texts: Texts) -> Pairs:
    """Return the pairs of texts that the search reports."""
    overlaps = near_duplicates(texts, SIMILARITY, SHINGLE)
    return {(name, overlap.other) for (name, _), overlap in zip(texts, overlaps) if overlap}


def measure() -> list[dict[str, Any]]:
    """Return recall, precision and the seconds of the search on one core."""
    texts, pairs = planted(TEXTS, PLANTED, random.Random(0))

    began = perf_counter()
    reported = search(texts)
    seconds = perf_counter() - began

    hits = len(reported & pairs)
    of = f"near-duplicates among {TEXTS:,} texts"
    return [
        {"name": f"{of}: recall", "value": hits / len(pairs), "interval": wilson(hits, len(pairs)), "unit": "share"},
        {
            "name": f"{of}: precision",
            "value": hits / len(reported),
            "interval": wilson(hits, len(reported)),
            "unit": "share",
        },
        {"name": f"{of}: time", "value": seconds, "unit": "s"},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=TEXTS, help=f"number of texts (default: {TEXTS})")
    args = parser.parse_args()

    texts, pairs = planted(args.texts, args.texts // 20, random.Random(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = perf_counter()
    reported = search(texts)
    seconds = perf_counter() - began
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    hits = len(reported & pairs)
    print(
        f"{args.texts:,} texts: {seconds:.0f} s, {memory:.1f} GB beside the texts, recall {hits / len(pairs):.4f}, "
        f"precision {hits / len(reported):.4f}"
    )


if __name__ == "__main__":
    main()
