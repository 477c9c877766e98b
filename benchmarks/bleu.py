"""BLEU as a reward: answers of 300 tokens against 3 references each, 8 answers per prompt, on one core.

    python -m benchmarks.bleu

The peer is the formula as Hugging Face evaluate's "bleu" computes it (its bleu.py, from tensorflow/nmt), without the
library's own overhead per call.
"""

import argparse
import math
import random
from collections import Counter
from time import perf_counter

from benchmarks.common import interleaved, publish, row
from workflow_scripts.core.bleu import references, sentence_bleu, tokens_of

REFERENCES, ANSWERS, TOKENS = 3, 8, 300


def of_evaluate(answer: str, texts: list[str]) -> float:
    def ngrams(segment):
        found = Counter()
        for order in range(1, 5):
            for i in range(0, len(segment) - order + 1):
                found[tuple(segment[i : i + order])] += 1
        return found

    tokens, split = tokens_of(answer), [tokens_of(text) for text in texts]
    merged = Counter()
    for segment in split:
        merged |= ngrams(segment)
    matches = [0] * 4
    for ngram, count in (ngrams(tokens) & merged).items():
        matches[len(ngram) - 1] += count
    logs = [math.log((m + 1) / (max(0, len(tokens) - n) + 1)) for n, m in enumerate(matches)]
    return math.exp(sum(logs) / 4 + min(0.0, 1 - min(map(len, split)) / len(tokens)))


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

    def per_second(score) -> float:
        references.cache_clear()
        began = perf_counter()
        for job in jobs:
            score(*job)
        return len(jobs) / (perf_counter() - began)

    mine, peer = interleaved(lambda: per_second(sentence_bleu), lambda: per_second(of_evaluate), 5)
    publish("bleu", [row("bleu", mine, peer, "answers/s", "evaluate's bleu.py, one core", "")])


if __name__ == "__main__":
    main()
