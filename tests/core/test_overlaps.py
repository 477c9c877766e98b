"""Texts that have much in common are found, and others are not."""

import random

import pytest

from benchmarks.rewards.duplicates import planted
from workflow_scripts.core import overlaps
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.overlaps import Held, banding, jaccard, near_duplicates, shingles, words_of

CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips "
    "did Natalia sell altogether in April and May?"
)
WENG = (
    "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of babysitting. How much did she earn?"
)
HELD = {"clips": CLIPS, "weng": WENG, "short": "What is 5! + x^2?"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It’s  3.5, or  “x^2”?", ["it", "s", "3", "5", "or", "x", "^", "2"]),
        ("ＦＵＬＬ width", ["full", "width"]),
        ("小明有3个苹果。", ["小", "明", "有", "3", "个", "苹", "果", "。"]),
        ("", []),
    ],
)
def test_words(text, words):
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("text", "kind", "other"),
    [
        (CLIPS.upper().replace(",", " ,"), "equal", "clips"),
        ("what is 5! + x^2", "equal", "short"),
        ("what is 5 + x^2", None, None),  # symbols count
        (f"Solve this problem. {CLIPS} Give only the number.", "ngrams", "clips"),
        (CLIPS.replace("Natalia", "Maria"), "ngrams", "clips"),
        (CLIPS[:60], None, None),  # covers less than half
        ("Weng earns money.", None, None),
        ("", None, None),
    ],
)
def test_what_a_text_shares_with_held_out_texts(text, kind, other):
    overlap = Held(HELD, 8, 0.5).overlap(text)
    assert (overlap and overlap.kind, overlap and overlap.other) == (kind, other)


def test_the_share_is_that_of_the_held_out_words_which_shared_ngrams_cover():
    held = Held({"a": "a b c d e f g h i j"}, 4, 0.5)
    overlap = held.overlap("x a b c d e x h i j")
    assert overlap is not None and overlap.share == 0.5  # a b c d e of ten words; h i j is no 4-gram
    assert held.overlap("a b c d x f g h x") is None


def test_an_instruction_that_all_held_out_texts_share_is_no_overlap():
    instruction = "Answer the following question step by step and write the number in a box"
    held = Held({str(i): f"{instruction}: how many apples has person {i} got now?" for i in range(40)}, 8, 0.5)

    assert held.overlap(f"{instruction}: where does the sun rise?") is None
    overlap = held.overlap("Quickly: how many apples has person 7 got now, please?")
    assert overlap is not None and overlap.other == "7"


def test_of_texts_that_nearly_equal_one_another_the_first_stays():
    texts = [("first", CLIPS), ("other", WENG), ("near", CLIPS.replace("friends", "friend")), ("last", CLIPS.lower())]
    overlaps = list(near_duplicates(texts, 0.8, 5))

    assert [overlap and (overlap.kind, overlap.other) for overlap in overlaps] == [
        None,
        None,
        ("near", "first"),
        ("near", "first"),
    ]
    near, last = overlaps[2:]
    assert near is not None and last is not None
    sets = [shingles(" ".join(words_of(text)), 5) for text in (CLIPS, texts[2][1])]
    assert near.share == round(jaccard(*sets), 4) < last.share == 1


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_a_pair_at_the_threshold_is_found_with_high_probability(similarity):
    rows, bands = banding(similarity)
    assert rows * bands <= overlaps.PERMUTATIONS
    assert 1 - (1 - similarity**rows) ** bands >= 0.95


def test_planted_near_duplicates_are_found_and_nothing_else():
    texts, pairs = planted(4000, 400, random.Random(3))
    reported = {(name, overlap.other) for (name, _), overlap in zip(texts, near_duplicates(texts, 0.8, 5)) if overlap}
    assert len(reported & pairs) / len(pairs) >= 0.95
    assert len(reported & pairs) / len(reported) >= 0.95


def test_texts_of_one_template_end_with_an_error_in_bounded_time(monkeypatch):
    monkeypatch.setattr(overlaps, "MOST_CANDIDATES", 50)
    texts = ((str(i), f"How much is the sum of {7 * i} and {i * i % 1000}, please tell me now") for i in range(3000))
    with pytest.raises(BadInput, match="texts of one template"):
        list(near_duplicates(texts, 0.8, 5))
