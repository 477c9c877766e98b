"""BLEU as a reward: answers of 300 tokens against 3 references each, 8 answers per prompt, on one core and on two.

    python -m benchmarks.bleu

On two cores the answers are two shards, as grade has them. The peer is the formula as Hugging Face evaluate's "bleu"
computes it (its bleu.py, from tensorflow/nmt), on one core, without the library's own overhead per call.
"""

import argparse
import math
import random
from collections import Counter
from multiprocessing import get_context
from time import perf_counter

from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

from benchmarks.common import interleaved, publish, row
from workflow_scripts.core.bleu import _tokens_of_word, references, sentence_bleu

REFERENCES, ANSWERS, TOKENS = 3, 8, 300
TOKENIZE = Tokenizer13a()


def of_evaluate(answer: str, texts: list[str]) -> float:
    def ngrams(segment):
        found = Counter()
        for order in range(1, 5):
            for i in range(0, len(segment) - order + 1):
                found[tuple(segment[i : i + order])] += 1
        return found

    tokens, split = TOKENIZE(answer).split(), [TOKENIZE(text).split() for text in texts]
    merged = Counter()
    for segment in split:
        merged |= ngrams(segment)
    matches = [0] * 4
    for ngram, count in (ngrams(tokens) & merged).items():
        matches[len(ngram) - 1] += count
    logs = [math.log((m + 1) / (max(0, len(tokens) - n) + 1)) for n, m in enumerate(matches)]
    return math.exp(sum(logs) / 4 + min(0.0, 1 - min(map(len, split)) / len(tokens)))


def forget() -> None:
    """Empty all caches, so that each pass meets its texts for the first time."""
    for cached in (references, _tokens_of_word, Tokenizer13a.__call__, TokenizerRegexp.__call__):
        cached.cache_clear()


def scored(jobs: list[tuple[str, list[str]]]) -> list[float]:
    forget()
    return [sentence_bleu(*job) for job in jobs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=25)
    args = parser.parse_args()
    rng = random.Random(0)
    words = [f"word{i}" for i in range(20_000)]
    frequent = [1 / (i + 10) for i in range(len(words))]  # Zipf's law, as texts have it

    def text() -> str:
        return " ".join(rng.choices(words, frequent, k=TOKENS - 1)) + "."

    prompts = [[text() for _ in range(REFERENCES)] for _ in range(args.prompts)]
    jobs = [(text(), prompt) for prompt in prompts for _ in range(ANSWERS)]
    assert max(abs(sentence_bleu(*job) - of_evaluate(*job)) for job in jobs) < 1e-12

    shards = [jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]]

    def per_second(work) -> float:
        forget()
        began = perf_counter()
        work()
        return len(jobs) / (perf_counter() - began)

    peer_work = lambda: [of_evaluate(*job) for job in jobs]  # noqa: E731
    with get_context("fork").Pool(2) as pool:
        works = {"bleu, one core": lambda: scored(jobs), "bleu, two cores": lambda: pool.map(scored, shards)}
        rows = []
        for name, work in works.items():
            mine, peer = interleaved(lambda work=work: per_second(work), lambda: per_second(peer_work), 5)
            rows.append(row(name, mine, peer, "answers/s", "evaluate's bleu.py, one core", ""))
    publish("bleu", rows)


if __name__ == "__main__":
    main()
