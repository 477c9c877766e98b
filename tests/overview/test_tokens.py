"""The colours of tokens on the page of a run."""

import math
import re

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.overview.test_page import BROWSER, dumped
from workflow_scripts.overview.page.tokens import (
    class_of_probability,
    class_of_ratio,
    coloured,
    pieces_of,
    spread,
)
from workflow_scripts.overview.page.write import answers_of

TEXTS = ["The answer is 4 😀.", "die Größe  ist\n\n  7", "価格は 3 円", "```python\nprint(1)\n```"]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(["the answer is"], trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet))
    return tokenizer


def with_word_marks() -> Tokenizer:
    """Return a tokenizer in the manner of SentencePiece: ▁ marks spaces, rare characters are spelt in bytes."""
    pieces = ["<unk>", *(f"<0x{number:02X}>" for number in range(256)), "▁", *"Theanswridgtul", "an", "▁an"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [("a", "n"), ("▁", "an")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, with_word_marks])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_spell_the_text(make, text):
    tokenizer = make()
    tokens = tokenizer.encode(text).ids

    pieces = list(pieces_of(tokenizer, tokens))

    assert len(pieces) == len(tokens)
    assert "".join(pieces) == tokenizer.decode(tokens)


def test_values_stand_at_the_sampled_tokens():
    assert spread([1, 0, 1], [-0.5, -1.0]) == [-0.5, None, -1.0]
    assert spread([1, 0, 1], []) == [None, None, None]


def test_classes():
    assert [class_of_probability(math.log(p)) for p in (1.0, 0.95, 0.5, 0.001)] == ["8", "8", "4", "0"]
    assert [class_of_ratio(math.log(r)) for r in (0.1, 1.0, 1.02, 1.3, 9.0)] == ["0", "4", "4", "7", "8"]
    assert class_of_probability(None) == class_of_ratio(None) == "-"


def test_an_answer_that_its_tokens_do_not_spell_has_no_colours():
    tokenizer = byte_level()
    record = {"tokens": tokenizer.encode("yes").ids, "mask": [1, 1, 1], "answer": "yes", "sampled_logps": [-0.1] * 3}

    assert coloured(record, tokenizer, [-0.1, -0.1, -0.5]) == {"tl": [1, 1, 1], "tp": "888", "tr": "440"}
    assert coloured(record, tokenizer, None) == {"tl": [1, 1, 1], "tp": "888"}
    assert coloured(record | {"answer": "no"}, tokenizer, None) == {}


def test_the_answers_of_a_finished_run_have_tokens_and_advantages(finished):
    questions = answers_of(finished.path(""), 1000)["rounds"]["questions"]
    answers = [answer for question in questions for answers in question["rounds"].values() for answer in answers]

    trained = [answer for answer in answers if "ad" in answer]
    assert trained
    for answer in answers:
        assert len(answer["tl"]) == len(answer["tp"])
        assert sum(answer["tl"]) == len(answer["a"])
    for answer in trained:
        assert set(answer["tr"]) <= {"4", "-"}  # the same arithmetic on the same machine


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_colours_tokens(finished, tmp_path):
    page = tmp_path / "page.html"
    finished.run("workflow_scripts.page", "--run", "runs/arithmetic", "--output", str(page))

    coloured_spans = r'<span title="(probability|advantage)[^"]*" style="background: rgba'
    assert "<span title=" not in dumped(page, "#set=rounds")
    assert re.search(coloured_spans, dumped(page, "#set=rounds&colour=tp"))
    assert re.search(r'title="advantage ', dumped(page, "#set=rounds&colour=ad"))
