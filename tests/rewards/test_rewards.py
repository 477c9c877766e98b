"""Rewards by name, by a model, and of one's own; and how several are combined."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForSequenceClassification

from workflow_scripts import rewards
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running import plugins
from workflow_scripts.init_model import train_tokenizer
from workflow_scripts.rewards.bleu import sentence_bleu
from workflow_scripts.workflow.preflight import PACKAGES

FORMULAS = ("bleu", "rouge", "bleu_rouge_f1")
ODD_TEXTS = ["", " ", "\n\n", "\x00\ud800", "🙂" * 50, "a" * 10_000, "&quot;"]


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = train_tokenizer(["What is this? A cat sat on the mat, and that was that."] * 3, 300)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    return tokenizer


# ---------------------------------------------------------------- packages


def imported(path) -> set[str]:
    """Return the packages that a file imports, and those of the rewards that it builds on."""
    packages = set()
    for module in re.findall(r"^\s*(?:from|import) ([\w.]+)", path.read_text(), re.M):
        if module.startswith("workflow_scripts.rewards."):
            packages |= imported(path.with_name(f"{module.rsplit('.', 1)[1]}.py"))
        elif not module.startswith("workflow_scripts"):
            packages.add(module.split(".")[0])
    return packages - sys.stdlib_module_names


@pytest.mark.parametrize("name", plugins.names("rewards"))
def test_a_reward_declares_the_packages_that_only_it_imports(name):
    """Before the first job, a run looks for them."""
    declared = plugins.constants("rewards", name).get("PACKAGES", ())
    path = Path(rewards.__file__).with_name(f"{name}.py")
    assert imported(path) - set(PACKAGES) == set(declared)


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_texts_have_a_reward(name, text):
    reward = rewards.load(name)
    assert 0 <= reward(text, ["a reference", "&"], {}) <= 1
    assert 0 <= reward("an answer", [text], {}) <= 1


def test_rouge_l_follows_the_longest_common_subsequence():
    """the … cat … down: 3 tokens of 4 and of 5."""
    reward = rewards.load("rouge")
    assert reward("The cat fell down", ["the black cat sits down", "no"], {}) == pytest.approx(2 * 3 / 9)


def test_bleu_rouge_f1_is_the_harmonic_mean():
    texts = ("The cat fell down", ["the black cat sits down", "no"], {})
    bleu, rouge, both = (rewards.load(name)(*texts) for name in FORMULAS)
    assert both == pytest.approx(2 / (1 / bleu + 1 / rouge))


# ---------------------------------------------------------------- models


def test_a_reward_model_scores_the_answer_to_its_question(tokenizer, tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=0, **shape)
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    record = {"uid": "u", "question": "What is this?"}
    parts = rewards.compute_parts("bleu_rm", str(tmp_path), "A cat.", ["no"], record)

    inputs = tokenizer("<user>What is this?<assistant>A cat.", return_tensors="pt")
    assert parts["rm"] == pytest.approx(model(**inputs).logits.item(), abs=1e-5)
    assert parts["bleu"] == sentence_bleu("A cat.", ["no"])


def test_a_reward_model_has_one_output_and_a_chat_template(tokenizer, tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    for name, outputs in (("two", 2), ("plain", 1)):
        config = LlamaConfig(vocab_size=len(tokenizer), num_labels=outputs, **shape)
        LlamaForSequenceClassification(config).save_pretrained(tmp_path / name)

    tokenizer.save_pretrained(tmp_path / "two")
    with pytest.raises(BadInput, match="has 2 outputs, but a reward model has one"):
        rewards.load("rm", str(tmp_path / "two"))

    plain = train_tokenizer(["What is this?"], 300)
    plain.save_pretrained(tmp_path / "plain")
    with pytest.raises(BadInput, match="has no chat template"):
        rewards.load("rm", str(tmp_path / "plain"))

    with pytest.raises(BadInput, match="reward rm: needs a model"):
        rewards.load("rm")


def test_bertscore_matches_tokens_greedily(tokenizer, tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 6, "num_attention_heads": 2}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reward = rewards.load("bertscore", str(tmp_path))
    a, b = "A cat sat.", "That was a mat."

    def unit_states(text: str) -> np.ndarray:
        hidden = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[5]
        states = hidden[0].detach().numpy()
        return states / np.linalg.norm(states, axis=1, keepdims=True)

    cosines = unit_states(a) @ unit_states(b).T
    precision, recall = cosines.max(1).mean(), cosines.max(0).mean()
    assert reward(a, [b], {}) == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-5)
    assert reward(a, [b, a], {}) == pytest.approx(1, abs=1e-5)
    assert reward("", [b], {}) == 0


# ---------------------------------------------------------------- a function of one's own


def test_a_reward_of_ones_own_is_a_function_in_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def short(answer, references, record):\n    return 1 / len(answer)\n\nLIMIT = 3\n")
    name = f"{file}:short"

    assert rewards.own_file(name) == str(file)
    assert rewards.compute_parts(name, None, "four", ["a reference"], {"uid": "q"}) == {name: 0.25}
    with pytest.raises(BadInput, match=r"record q\.auto\.0: ZeroDivisionError"):
        rewards.compute_parts(name, None, "", ["a reference"], {"uid": "q.auto.0"})

    with pytest.raises(BadInput, match="has no function 'LIMIT'"):
        rewards.load(f"{file}:LIMIT")
    with pytest.raises(BadInput, match="there is no file"):
        rewards.load(f"{tmp_path}/other.py:short")
    with pytest.raises(BadInput, match="there is no reward 'blue'"):
        rewards.load("blue")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, None, "1"])
def test_a_reward_is_a_finite_number(value):
    with pytest.raises(BadInput, match=r"record q\.auto\.0: should be a finite number"):
        rewards.compute(lambda *_: value, "an answer", ["a reference"], {"uid": "q.auto.0"})


# ---------------------------------------------------------------- several rewards together


def test_a_combined_reward_is_in_units_of_each_parts_spread():
    parts = [{"bleu": 0.1, "rm": 30.0}, {"bleu": 0.3, "rm": -10.0}, {"bleu": 0.2, "rm": -20.0}]
    columns = np.array([list(values.values()) for values in parts])
    expected = ((columns - columns.mean(0)) / columns.std(0)).mean(1)

    assert rewards.combine(parts) == pytest.approx(list(expected))


def test_a_part_without_spread_has_no_say():
    assert rewards.combine([{"bleu": 0.1, "rm": 1.0}, {"bleu": 0.1, "rm": 2.0}]) == [-0.5, 0.5]


def test_a_single_part_is_taken_as_it_is():
    assert rewards.combine([{"bleu": 0.1}, {"bleu": 0.4}]) == [0.1, 0.4]
    assert rewards.combine([]) == []


@pytest.mark.parametrize("name", plugins.names("rewards"))
def test_every_reward_says_whether_a_model_computes_it(name):
    """The config is checked where torch may be missing, so this is read from the source."""
    needs_model = plugins.constants("rewards", name).get("NEEDS_MODEL", False)
    assert needs_model == any(part in ("rm", "bertscore", "reward_model") for part in rewards.parts_of(name))
    assert rewards.roots(name) == [f"workflow_scripts.rewards.{part}" for part in rewards.parts_of(name)]
