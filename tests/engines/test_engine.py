"""The transformers engine on a small Llama with a real tokenizer."""

import pytest
import torch

from workflow_scripts.engines import Request, load
from workflow_scripts.init_model import make_model, train_tokenizer
from workflow_scripts.training import bins
from workflow_scripts.training.logps import load_policy, sampled_logps

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
SCRATCH = {"layers": 2, "width": 32, "heads": 2, "mlp_width": 64, "context": 256, "init_std": 0.3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["What is 3 + 4? The answer is 7."] * 10, 300)
    make_model(SCRATCH, tokenizer, 0).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def engine(folder, stop=("```output",), **sampling):
    """Return the engine with this sampling."""
    return load(
        "transformers",
        model=folder,
        settings={"threads": 1, "dtype": "float32"},
        sampling=SAMPLING | sampling,
        stop=stop,
    )


def requests(count, length=24):
    """Return requests with contexts of several lengths, each with a seed of its own."""
    return [Request(list(range(5, 8 + i % 7)), seed=1000 + i, max_tokens=length) for i in range(count)]


def test_an_answer_does_not_depend_on_its_batch(folder):
    running = engine(folder)
    together = running.generate(requests(9))
    alone = [running.generate([request])[0] for request in requests(9)]
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]
    assert together == running.generate(requests(9))  # the same plan: the same bits, log-probs too


def test_seeds_differ_and_repeat(folder):
    running = engine(folder)
    draws = {tuple(running.generate([Request([5, 6, 7], seed, 16)])[0].tokens) for seed in range(20)}
    assert len(draws) == 20


def test_greedy_equals_generate(folder):
    running = engine(folder, temperature=0)
    for request, ours in zip(requests(7), running.generate(requests(7))):
        ids = torch.tensor([request.tokens])
        theirs = running.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        assert ours.tokens == theirs[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_logps_agree_with_scoring_so_the_ratio_is_one(folder, temperature):
    running = engine(folder, temperature=temperature)
    model = load_policy(folder, "float32").eval()
    contexts = requests(40)
    answers = running.generate(contexts)

    rows = []
    for request, answer in zip(contexts, answers):
        rows.append({"prompt_tokens": request.tokens, "tokens": answer.tokens, "mask": [1] * len(answer.tokens)})
    with torch.no_grad():
        scored = sampled_logps(model, bins.collate(rows, 0), temperature)

    sampled = torch.tensor([logp for answer in answers for logp in answer.logps])
    torch.testing.assert_close(scored, sampled, atol=2e-5, rtol=0)
    assert (scored - sampled).exp().mean().item() == pytest.approx(1, abs=0.01)


def test_sampling_follows_the_models_distribution(folder):
    running = engine(folder)
    with torch.no_grad():
        expected = running.model(torch.tensor([[5, 6, 7]])).logits[0, -1].softmax(-1)

    drawn = [answer.tokens[0] for answer in running.generate([Request([5, 6, 7], seed, 1) for seed in range(4000)])]

    counts = torch.bincount(torch.tensor(drawn), minlength=len(expected)) / 4000
    assert (counts - expected).abs().max() < 0.03


def test_the_nucleus_and_top_k_leave_the_rest_out(folder):
    with torch.no_grad():
        order = engine(folder).model(torch.tensor([[5, 6, 7]])).logits[0, -1].argsort(descending=True).tolist()

    for settings, allowed in (({"top_k": 3}, order[:3]), ({"top_p": 1e-6}, order[:1])):
        answers = engine(folder, **settings).generate([Request([5, 6, 7], seed, 1) for seed in range(200)])
        assert {answer.tokens[0] for answer in answers} <= set(allowed)


def test_an_answer_ends_at_eos_at_a_stop_string_or_at_its_length(folder):
    running = engine(folder, stop=("7",))
    seven, eos = running.tokenizer.encode("7")[0], running.tokenizer.eos_token_id
    answers = running.generate([Request([5, 6, 7], seed, 40) for seed in range(300)])

    for answer in answers:
        last = answer.tokens[-1]
        expected = "eos" if last == eos else "stop" if last == seven else "length"
        assert answer.finish == expected
        assert seven not in answer.tokens[:-1] and eos not in answer.tokens[:-1]

    assert {answer.finish for answer in answers} == {"eos", "stop", "length"}


def test_any_text_survives_the_tokenizer(folder):
    tokenizer = engine(folder).tokenizer
    for text in ("naïve ≠ 語 \x00 12345\n```python\n", " leading", "  two  spaces "):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("12345")) == 5  # each digit is a token of its own
