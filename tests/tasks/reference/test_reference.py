"""BLEU and its kin against formulas written anew here; the reference task's prompts, grading and selection."""

import json
import math
import random
from collections import Counter

import numpy as np
import pytest
from conftest import Copy
from faulty_proxy import says
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForSequenceClassification

from workflow_scripts import judge
from workflow_scripts.core import rewards
from workflow_scripts.core.bleu import answer_of, sentence_bleu, tokens_of
from workflow_scripts.core.formats import existing_answers
from workflow_scripts.core.manifest import write_manifest
from workflow_scripts.core.records import BadInput, read_records, write_pickle
from workflow_scripts.core.sections import Prompts
from workflow_scripts.engines import Reply
from workflow_scripts.init_model import train_tokenizer
from workflow_scripts.tasks import reference

WORDS = [f"w{i}" for i in range(200)] + list("?!.,") + ["don't", "3.14", "1,000", "&amp;", "naïve", "日本"]


def nmt_bleu(answer: str, references: list[str]) -> float:
    """tensorflow/nmt scripts/bleu.py, compute_bleu with smooth=True, for one text, as Hugging Face evaluate runs it."""
    tokenize = Tokenizer13a()
    translation, corpus = tokenize(answer).split(), [tokenize(text).split() for text in references]

    def ngrams(segment):
        return Counter(
            tuple(segment[i : i + order]) for order in range(1, 5) for i in range(0, len(segment) - order + 1)
        )

    merged = Counter()
    for segment in corpus:
        merged |= ngrams(segment)
    matches, possible = [0] * 4, [0] * 4
    for ngram, count in (ngrams(translation) & merged).items():
        matches[len(ngram) - 1] += count
    for order in range(1, 5):
        possible[order - 1] += max(0, len(translation) - order + 1)
    precisions = [(m + 1.0) / (p + 1.0) for m, p in zip(matches, possible)]
    ratio = len(translation) / min(map(len, corpus))
    return math.exp(sum(math.log(p) / 4 for p in precisions)) * (1.0 if ratio > 1.0 else math.exp(1 - 1.0 / ratio))


def test_bleu_is_the_formula_on_ten_thousand_pairs():
    rng = random.Random(0)
    for _ in range(10_000):
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 25))) for _ in range(rng.randint(2, 5))]
        if rng.random() < 0.5:  # something in common
            texts[0] = " ".join(texts[1].split()[: rng.randint(1, 25)] + rng.choices(WORDS, k=rng.randint(0, 5)))
        assert sentence_bleu(texts[0], texts[1:]) == pytest.approx(nmt_bleu(texts[0], texts[1:]), abs=1e-9)


def test_words_have_the_tokens_of_their_text():
    rng, whole = random.Random(0), Tokenizer13a()
    for _ in range(5_000):
        text = "".join(rng.choices("ab19 .,-'\"&;:<>_/()\n\t\u00a0é中", k=rng.randint(0, 30)))
        text += rng.choice(("", "&amp;lt;", "<skipped>", "-\n", "1.5, .5,5. 3-4"))
        assert tokens_of(text) == whole(text).split(), repr(text)


def test_bleu_by_hand():
    """Of 5, 4, 3 and 2 n-grams 5, 3, 0 and 0 are in a reference; the shorter reference has 6 tokens, the answer 5."""
    references = ["the cat is sitting down .", "a cat sat on the mat , I think ."]
    expected = ((6 / 6) * (4 / 5) * (1 / 4) * (1 / 3)) ** 0.25 * math.exp(1 - 6 / 5)
    assert sentence_bleu("the cat sat down .", references) == pytest.approx(expected, abs=1e-12)
    assert sentence_bleu("the the the the .", ["the cat ."]) < sentence_bleu("the cat .", ["the cat ."]) == 1


ODD = ["", " ", "\n\n", "<answer></answer>", "\x00\ud800", "🙂" * 50, "a" * 10_000, "&quot;"]


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_have_a_figure(text):
    for reward in rewards.FORMULAS.values():
        assert 0 <= reward(answer_of(text), ["a reference", "&"], {}) <= 1
        assert 0 <= reward("an answer", [text], {}) <= 1
    assert sentence_bleu("", ["a reference"]) == 0


def test_the_answer_within_its_tags_counts():
    assert answer_of("<think>so</think> <answer> yes, it is </answer> more") == "yes, it is"
    assert answer_of(" plain ") == "plain"


def test_rouge_l_is_of_the_longest_common_subsequence():
    """the … cat … down: 3 of 4 and 5 tokens."""
    assert rewards.rouge("The cat fell down", ["the black cat sits down", "no"], {}) == pytest.approx(2 * 3 / 9)


def test_a_reward_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def short(answer, references, record):\n    return 1 / len(answer)\n\nLIMIT = 3\n")
    record = {"uid": "q.auto.0", "solution": "four", "correct": json.dumps(["a reference"])}
    assert reference.grade(record, None, reward=f"{file}:short")["parts"] == {f"{file}:short": 0.25}
    with pytest.raises(BadInput, match=r"record q\.auto\.0: ZeroDivisionError"):
        reference.grade(record | {"solution": ""}, None, reward=f"{file}:short")
    with pytest.raises(BadInput, match="has no function 'LIMIT'"):
        rewards.load(f"{file}:LIMIT")
    with pytest.raises(BadInput, match="there is no reward 'blue'"):
        rewards.load("blue")


def test_a_combined_reward_is_in_units_of_each_parts_spread_within_the_prompt():
    parts = [{"bleu": 0.1, "rm": 30.0}, {"bleu": 0.3, "rm": -10.0}, {"bleu": 0.2, "rm": -20.0}]
    z = np.array([list(one.values()) for one in parts])
    assert rewards.combined(parts) == pytest.approx(list(((z - z.mean(0)) / z.std(0)).mean(1)))
    assert rewards.combined([{"bleu": 0.1, "rm": 1.0}, {"bleu": 0.1, "rm": 2.0}]) == [-0.5, 0.5]  # no spread, no say
    assert rewards.combined([{"bleu": 0.1}, {"bleu": 0.4}]) == [0.1, 0.4]


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = train_tokenizer(["What is this? A cat sat on the mat, and that was that."] * 3, 300)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    return tokenizer


def test_a_reward_model_scores_the_answer_to_its_question(tokenizer, tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=0, **shape)
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ids = tokenizer("<user>What is this?<assistant>A cat.", return_tensors="pt")
    record = {"uid": "u", "solution": "A cat.", "correct": '["no"]', "question": "What is this?"}
    parts = reference.grade(record, None, "bleu_rm", str(tmp_path))["parts"]
    assert parts["rm"] == pytest.approx(model(**ids).logits.item(), abs=1e-5) and parts["bleu"] == sentence_bleu(
        "A cat.", ["no"]
    )
    LlamaForSequenceClassification(LlamaConfig(vocab_size=9, num_labels=2, **shape)).save_pretrained(tmp_path / "two")
    tokenizer.save_pretrained(tmp_path / "two")
    with pytest.raises(BadInput, match="has 2 outputs; a reward model has one"):
        rewards.load("rm", str(tmp_path / "two"))
    with pytest.raises(BadInput, match="reward rm: needs a model"):
        rewards.load("rm")


def test_bertscore_matches_tokens_greedily(tokenizer, tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 6, "num_attention_heads": 2}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reward = rewards.load("bertscore", str(tmp_path))
    a, b = "A cat sat.", "That was a mat."
    x, y = (
        model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[5][0].detach().numpy()
        for text in (a, b)
    )
    cosines = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T
    precision, recall = cosines.max(1).mean(), cosines.max(0).mean()
    assert reward(a, [b], {}) == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-5)
    assert reward(a, [b, a], {}) == pytest.approx(1, abs=1e-5) and reward("", [b], {}) == 0


def test_a_pool_gives_references_of_the_chosen_models(tmp_path):
    rows = [
        {"id": "a", "source": "s", "messages": [{"role": "user", "content": "Say hi."}]}
        | {"ref_output_gold": "Hi.", "ref_output_other": "Hello."},
        {"id": "b", "source": "s", "messages": [{"role": "user", "content": "Say bye."}], "ref_output_gold": "Bye."},
    ]
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def read(*models):
        split = {"file": str(path), "limit": None, "count": None}
        settings = Prompts(eval={"file": str(path)}, ref_models=list(models)).model_dump(mode="json")
        return list(reference.read_prompts(split, settings, "train", 0))

    assert [json.loads(prompt["answer"]) for prompt in read("gold")] == [["Hi."], ["Bye."]]
    two = read("gold", "other")
    assert json.loads(two[0]["answer"]) == ["Hi.", "Hello."] and two[1]["fault"] == "no ref_output_other"
    with pytest.raises(BadInput, match="ref_models may be gold, other"):
        read("gpt")


def test_rewards_become_advantages_within_a_prompt():
    def answer(uid, question, reward):
        shared = {"id": "q", "req": question, "task": "s", "correct": "[]", "solution": uid, "question": question}
        return shared | {"uid": uid, "parts": {"bleu": reward}, "prompt_tokens": [1], "tokens": [2], "mask": [1]} | {
            "policy": "p", "finish": "eos"
        }  # fmt: skip

    records = [answer("a", "one", 0.2), answer("b", "one", 0.4), answer("c", "two", 0.3), answer("d", "two", 0.3)]
    settings = {"advantage": "group_std", "advantage_clip": None}
    meta = reference.construct_meta(records, False)
    rows, dropped = reference.select({"auto": meta}, settings, 0, None)
    assert {row["qid"]: row["advantage"] for row in rows} == pytest.approx({"a": -1.0, "b": 1.0})
    assert dropped == {"answer in a group without variance": 2} and reference.counts(meta) == {"answers": 4}


def test_win_rates_are_against_the_round_before():
    def answer(bleu, rouge, rm, before=None):
        return {"solution": "a b", "bleu": bleu, "rouge_l": rouge, "parts": {"rm": rm}, "level": "s", "before": before}

    first = [answer(0.1, 0.5, 1.0), answer(0.2, 0.5, 1.0)]
    assert "win_rate" not in reference.summarise(first)
    found = reference.summarise([answer(0.3, 0.5, 0.0, first[0]), answer(0.1, 0.6, 0.5, first[1])])
    assert [found[f"win_rate{name}"] for name in ("", " rouge_l", " rm")] == [0.5, 0.75, 0.0]
    assert found["by_level"]["s"]["win_rate"] == 0.5


def test_made_up_instructions_are_disjoint_and_seeded():
    settings = Prompts(train={"count": {"greet": 20}}, eval={"count": {"greet": 20}}, references=2)
    settings = settings.model_dump(mode="json")
    train, held_out = (list(reference.read_prompts(settings[name], settings, name, 0)) for name in ("train", "eval"))
    assert not {p["question"] for p in train} & {p["question"] for p in held_out}
    assert len(train) == 20 and all(len(json.loads(p["answer"])) == 2 for p in train)
    assert train == list(reference.read_prompts(settings["train"], settings, "train", 0))


def test_a_reward_is_refused_where_the_task_has_its_own(tmp_path):
    copy = Copy(tmp_path)
    output = copy.snakemake("-n", "round1_checkpoint", "--config", "reward=bleu", fails=True)
    assert "reward: the task 'arithmetic' judges in its own way alone" in output
    output = copy.snakemake("-n", "round1_checkpoint", "--config", "reward=blue", fails=True)
    assert "reward: there is no such reward" in output


def answered(tmp_path, name: str, texts: list[str]):
    """A graded shard of these answers to five instructions."""
    rows = [{"uid": f"q{i}.0", "question": f"Say {i}.", "solution": text} for i, text in enumerate(texts)]
    write_pickle(tmp_path / name, rows)
    write_manifest(tmp_path / name, [], {}, rows=len(rows))
    return str(tmp_path / name)


def test_a_judge_compares_answers_with_those_of_the_round_before(tmp_path, monkeypatch):
    """A judge who always prefers the first answer prefers the newer one where that stands first; equal ones tie."""
    now = answered(tmp_path, "now.pkl", [f" new {i}" for i in range(9)] + [" same"])
    before = answered(tmp_path, "before.pkl", [f" old {i}" for i in range(9)] + [" same"])
    command = ["judge", "--results", now, "--before", before, "--output", str(tmp_path / "r1.jsonl")]
    with says("**A**.") as url:
        settings = {"openai": {"base_url": url, "model": "m", "key_env": None}}
        monkeypatch.setattr("sys.argv", [*command, "--settings", json.dumps(settings)])
        judge.main()
    found = {line["uid"]: line["verdict"] for line in read_records(tmp_path / "r1.jsonl")}
    assert found == {f"q{i}.0": float(judge.is_first(f"q{i}.0")) for i in range(9)} | {"q9.0": 0.5}
    assert 0 < sum(found.values()) < 9
    judge.main()  # with no server left: all is in the ledger
    figures = {"bleu": 0.0, "rouge_l": 0.0, "parts": {}}
    wins = reference.win_rates([figures | {"before": figures, "judged": value} for value in (1.0, 0.5, None)])
    assert wins["win_rate judge"] == 0.75


def test_what_is_no_verdict_is_a_reject(tmp_path, monkeypatch):
    pairs = [answered(tmp_path, name, [f" {name}"]) for name in ("now.pkl", "before.pkl")]
    with says("Both are fine.") as url:
        settings = {"openai": {"base_url": url, "model": "m", "key_env": None}}
        options = ["--results", pairs[0], "--before", pairs[1], "--settings", json.dumps(settings)]
        monkeypatch.setattr("sys.argv", ["judge", *options, "--output", str(tmp_path / "r1.jsonl")])
        judge.main()
    assert list(read_records(tmp_path / "r1.jsonl")) == []
    [reject] = read_records(tmp_path / "r1.rejects.jsonl")
    assert "neither A, B nor tie: 'Both are fine.'" in reject["reason"]


@pytest.mark.parametrize("text", ["A tie.", "A and B are equal: tie", "A better answer is B", ""])
def test_a_verdict_is_one_word(text):
    value, reason = judge.verdict({"uid": "x"}, Reply(text, "eos", None, 1))
    assert value is None and "neither A, B nor tie" in reason
    assert judge.verdict({"uid": "x"}, Reply(" **Tie**\n", "eos", None, 1)) == (0.5, None)


def test_answers_that_exist_have_ids_as_text_of_any_kind(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": 7, "response": "a"}\n{"id": "8", "response": null}\n')
    assert existing_answers(str(path)) == {"7": "a", "8": ""}
    path.write_text('{"prompt": "p", "response": "a"}\n')
    with pytest.raises(BadInput, match=r"answers\.jsonl, record 1: needs an id of its own"):
        existing_answers(str(path))


def test_records_of_a_pool_that_cannot_be_asked(tmp_path):
    """Each is left out with its reason: nothing is guessed of them."""
    odd = [
        {"messages": "hi"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
        {"prompt": 5},
        {"prompt": "fine", "ref_output_gold": None},
    ]
    path = tmp_path / "pool.jsonl"
    lines = [{"ref_output_gold": "x", "id": str(i)} | one for i, one in enumerate([{"prompt": "good"}, *odd])]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = list(reference.pool({"file": str(path), "limit": None}, ["gold"]))
    assert "fault" not in found[0] and found[0]["question"] == "good"
    reasons = ["list of messages", "role and content", "one message by the user", "or `prompt`", "no ref_output_gold"]
    assert all(reason in one["fault"] for reason, one in zip(reasons, found[1:], strict=True))
