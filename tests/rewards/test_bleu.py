"""BLEU against the original's formula, written anew here, and its tokens against sacrebleu's."""

import math
import random
from collections import Counter

import pytest
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from workflow_scripts.rewards.bleu import sentence_bleu, tokens_of

WORDS = [f"w{i}" for i in range(200)] + list("?!.,") + ["don't", "3.14", "1,000", "&amp;", "naïve", "日本"]


def nmt_bleu(answer: str, references: list[str]) -> float:
    """Return the BLEU of one text as Hugging Face evaluate computes it: tensorflow/nmt scripts/bleu.py, smooth=True."""
    tokenize = Tokenizer13a()
    translation = tokenize(answer).split()
    corpus = [tokenize(text).split() for text in references]

    def ngrams(segment):
        return Counter(
            tuple(segment[i : i + order]) for order in range(1, 5) for i in range(0, len(segment) - order + 1)
        )

    merged = Counter()
    for segment in corpus:
        merged |= ngrams(segment)

    matches = [0] * 4
    possible = [0] * 4
    for ngram, count in (ngrams(translation) & merged).items():
        matches[len(ngram) - 1] += count
    for order in range(1, 5):
        possible[order - 1] += max(0, len(translation) - order + 1)

    precisions = [(m + 1.0) / (p + 1.0) for m, p in zip(matches, possible)]
    ratio = len(translation) / min(map(len, corpus))
    brevity = 1.0 if ratio > 1.0 else math.exp(1 - 1.0 / ratio)
    return math.exp(sum(math.log(p) / 4 for p in precisions)) * brevity


def test_bleu_equals_the_formula_on_ten_thousand_pairs():
    rng = random.Random(0)

    for _ in range(10_000):
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 25))) for _ in range(rng.randint(2, 5))]
        if rng.random() < 0.5:  # answer and first reference have their beginning in common
            texts[0] = " ".join(texts[1].split()[: rng.randint(1, 25)] + rng.choices(WORDS, k=rng.randint(0, 5)))
        assert sentence_bleu(texts[0], texts[1:]) == pytest.approx(nmt_bleu(texts[0], texts[1:]), abs=1e-9)


def test_tokens_by_word_equal_the_tokens_of_the_whole_text():
    rng = random.Random(0)
    tokenize = Tokenizer13a()

    for _ in range(5_000):
        text = "".join(rng.choices("ab19 .,-'\"&;:<>_/()\n\t\u00a0é中", k=rng.randint(0, 30)))
        text += rng.choice(("", "&amp;lt;", "<skipped>", "-\n", "1.5, .5,5. 3-4"))
        assert tokens_of(text) == tokenize(text).split(), repr(text)


def test_bleu_by_hand():
    """5, 3, 0 and 0 of the answer's 5, 4, 3 and 2 n-grams occur in a reference. The answer has 5 tokens, the shorter
    reference 6."""
    references = ["the cat is sitting down .", "a cat sat on the mat , I think ."]
    expected = ((6 / 6) * (4 / 5) * (1 / 4) * (1 / 3)) ** 0.25 * math.exp(1 - 6 / 5)

    assert sentence_bleu("the cat sat down .", references) == pytest.approx(expected, abs=1e-12)


def test_repeated_words_count_as_often_as_in_a_reference():
    assert sentence_bleu("the the the the .", ["the cat ."]) < sentence_bleu("the cat .", ["the cat ."]) == 1


def test_an_empty_answer_has_no_bleu():
    assert sentence_bleu("", ["a reference"]) == 0
