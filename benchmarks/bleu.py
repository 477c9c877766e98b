"""BLEU as a reward: answers of 300 tokens against 3 references each, 8 answers per prompt, on one core and on two.

    python -m benchmarks.bleu

On two cores the answers are two shards, as the stage grade has them. The peer is the formula as Hugging Face evaluate's
"bleu" computes it (its bleu.py, from tensorflow/nmt), on one core, without the library's own overhead per call.
"""

import argparse
import math
import random
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from time import perf_counter
from typing import Any

from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

from benchmarks.common import interleaved, publish, row
from workflow_scripts.rewards.bleu import _tokens_of_word, references, sentence_bleu

REFERENCES = 3
ANSWERS = 8
TOKENS = 300
TOKENIZE = Tokenizer13a()

Job = tuple[str, list[str]]  # an answer and its references


def bleu_of_evaluate(answer: str, texts: list[str]) -> float:
    """Return the BLEU of an answer as the library computes it."""

    def ngrams(segment: list[str]) -> Counter:
        counts: Counter = Counter()
        for order in range(1, 5):
            for i in range(0, len(segment) - order + 1):
                counts[tuple(segment[i : i + order])] += 1
        return counts

    tokens = TOKENIZE(answer).split()
    split = [TOKENIZE(text).split() for text in texts]
    merged: Counter = Counter()
    for segment in split:
        merged |= ngrams(segment)

    matches = [0] * 4
    for ngram, count in (ngrams(tokens) & merged).items():
        matches[len(ngram) - 1] += count

    logs = [math.log((m + 1) / (max(0, len(tokens) - n) + 1)) for n, m in enumerate(matches)]
    return math.exp(sum(logs) / 4 + min(0.0, 1 - min(map(len, split)) / len(tokens)))


def forget() -> None:
    """Empty all caches, so that each pass meets its texts for the first time."""
    cached: Any
    for cached in (references, _tokens_of_word, Tokenizer13a.__call__, TokenizerRegexp.__call__):
        cached.cache_clear()


def scored(jobs: list[Job]) -> list[float]:
    """Return the BLEU of each answer, with empty caches at the beginning."""
    forget()
    return [sentence_bleu(*job) for job in jobs]


def make_jobs(prompts: int) -> list[Job]:
    """Return answers with references, of words that are as frequent as Zipf's law has it."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(20_000)]
    frequency = [1 / (i + 10) for i in range(len(words))]

    def text() -> str:
        return " ".join(rng.choices(words, frequency, k=TOKENS - 1)) + "."

    of_prompts = [[text() for _ in range(REFERENCES)] for _ in range(prompts)]
    return [(text(), texts) for texts in of_prompts for _ in range(ANSWERS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=25, help="prompts, with 8 answers each (default: 25)")
    args = parser.parse_args()

    jobs = make_jobs(args.prompts)
    shards = [jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]]
    assert max(abs(sentence_bleu(*job) - bleu_of_evaluate(*job)) for job in jobs) < 1e-12

    def per_second(work: Callable[[], Any]) -> float:
        forget()
        began = perf_counter()
        work()
        return len(jobs) / (perf_counter() - began)

    def peer() -> float:
        return per_second(lambda: [bleu_of_evaluate(*job) for job in jobs])

    with get_context("fork").Pool(2) as pool:
        one = interleaved(lambda: per_second(lambda: scored(jobs)), peer, 5)
        two = interleaved(lambda: per_second(lambda: pool.map(scored, shards)), peer, 5)

    named = ("answers/s", "evaluate's bleu.py, one core", "")
    publish("bleu", [row("bleu, one core", *one, *named), row("bleu, two cores", *two, *named)])


if __name__ == "__main__":
    main()
