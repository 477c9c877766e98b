"""TRL as a peer: our objectives have its losses and gradients, and it trains on our pairs. Run by `make test-trl`."""

import datasets
import numpy as np
import pytest
import torch

pytest.importorskip("trl", reason="needs TRL's environment: make test-trl")

from benchmarks import training
from benchmarks.training import BATCH, make_model, trl_trainer
from tests.workshop import logps_packed, make_rows, small_llama
from workflow_scripts import init_model
from workflow_scripts.config.sections import Scratch, Train
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.tasks.tabular import gen_dpo
from workflow_scripts.training import bins, objectives
from workflow_scripts.training.logps import load_policy, sampled_logps
from workflow_scripts.training.objectives import Tokens
from workflow_scripts.training.trainer import OF_TOKENS


def test_dpo_has_trls_loss_and_gradients(tmp_path, monkeypatch):
    """The policy has left its reference, so that no margin is 0."""
    small = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 300, "intermediate_size": 128}
    monkeypatch.setitem(training.SHAPES, "small", small)
    folder = make_model(tmp_path / "model", "small")
    rows = training.make_rows(BATCH, 300, pairs=True)

    theirs = trl_trainer("DPO", folder, rows, str(tmp_path / "trl"))
    with torch.no_grad():
        for parameter in theirs.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.02)
    theirs.model.save_pretrained(tmp_path / "moved")
    batch = theirs.data_collator([theirs.train_dataset[i] for i in range(BATCH // 2)])
    expected = theirs.compute_loss(theirs.model, batch)
    expected.backward()

    inputs = bins.collate(rows, 0)
    with torch.no_grad():
        inputs["reference"] = sampled_logps(load_policy(folder, "float32"), inputs)
    policy = load_policy(str(tmp_path / "moved"), "float32")
    tokens = Tokens(sampled_logps(policy, inputs), *(inputs[name] for name in OF_TOKENS))
    settings = Train(objective="dpo", nll_weight=0, dpo_beta=theirs.beta)
    total, _ = objectives.load("dpo").loss(tokens, settings)
    loss = total / (BATCH // 2)
    loss.backward()

    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert abs(loss.item() - 0.6931) > 1e-3
    for (name, ours), right in zip(policy.named_parameters(), theirs.model.parameters()):
        torch.testing.assert_close(ours.grad, right.grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.fixture(scope="module")
def grpo(tmp_path_factory):
    """Return TRL's GRPO trainer on a small model, and a batch of rows with log-probs of other policies."""
    import trl
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("grpo")
    small_llama().save_pretrained(folder / "model")
    config = trl.GRPOConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, report_to="none", disable_tqdm=True,
        per_device_train_batch_size=4, num_generations=2, beta=0.0, loss_type="dapo",
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=datasets.Dataset.from_list([{"prompt": "a"}] * 4),
        processing_class=training.tokenizer(),
    )
    trainer.current_gradient_accumulation_steps = 1

    policy = load_policy(str(folder / "model"), "float32")
    rng = np.random.default_rng(1)
    rows = [row | {"mask": [1] * len(row["tokens"])} for row in make_rows(8)]
    with torch.no_grad():
        own = logps_packed(policy, rows)
    for row, logps in zip(rows, own):
        row["advantage"] = float(rng.normal())
        row["foreign"] = False
        row["behaviour_logps"] = logps.numpy() + rng.normal(0, 0.3, len(logps)).astype(np.float32)
        row["reference_logps"] = logps.numpy() + rng.normal(0, 0.3, len(logps)).astype(np.float32)
    return trainer, policy, rows


def padded(values, left: bool = False) -> torch.Tensor:
    """Return sequences as one tensor, padded with zeros."""
    side = "left" if left else "right"
    return torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, values)), batch_first=True, padding_side=side)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"objective": "clip"}, {"loss_type": "dapo"}),
        ({"objective": "clip", "mean_over": "rows"}, {"loss_type": "grpo"}),
        ({"objective": "clip", "mean_over": "constant", "mean_constant": 256}, {"loss_type": "dr_grpo"}),
        ({"objective": "clip", "kl": 0.3}, {"loss_type": "dapo", "beta": 0.3}),
        ({"objective": "gspo"}, {"loss_type": "grpo", "importance_sampling_level": "sequence"}),
        ({"objective": "cispo", "ratio_cap": 1.3}, {"loss_type": "cispo", "epsilon_high": 1.3}),
    ],
    ids=["dapo", "grpo", "dr_grpo", "kl", "gspo", "cispo"],
)
def test_policy_objectives_have_trls_loss_and_gradients(grpo, monkeypatch, ours, theirs):
    trainer, policy, rows = grpo
    for name, value in theirs.items():
        monkeypatch.setattr(trainer, name, value)
    monkeypatch.setattr(trainer.args, "use_bias_correction_kl", True)
    monkeypatch.setattr(trainer, "max_completion_length", 256)
    length = sum(len(row["tokens"]) for row in rows)
    batch = {
        "prompt_ids": padded([row["prompt_tokens"] for row in rows], left=True),
        "prompt_mask": padded([[1] * len(row["prompt_tokens"]) for row in rows], left=True),
        "completion_ids": padded([row["tokens"] for row in rows]),
        "completion_mask": padded([row["mask"] for row in rows]),
        "advantages": torch.tensor([row["advantage"] for row in rows]),
        "old_per_token_logps": padded([row["behaviour_logps"] for row in rows]),
        "ref_per_token_logps": padded([row["reference_logps"] for row in rows]),
        "num_items_in_batch": torch.tensor(float(length)),
    }
    monkeypatch.setattr(trainer.args, "steps_per_generation", 1)
    trainer.model.zero_grad()
    expected = trainer._compute_loss(trainer.model.train(), batch)
    expected.backward()

    policy.zero_grad()
    inputs = bins.collate(rows, 0)
    settings = Train(**ours)
    tokens = Tokens(sampled_logps(policy, inputs), *(inputs[name] for name in OF_TOKENS))
    total, _ = objectives.load(settings.objective).loss(tokens, settings)
    loss = total / (length if settings.unit == "tokens" else len(rows))
    loss.backward()

    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for (name, mine), right in zip(policy.named_parameters(), trainer.model.parameters()):
        torch.testing.assert_close(mine.grad, right.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_trl_trains_on_the_pairs_that_a_round_of_tables_leaves(tmp_path, monkeypatch):
    """Both the JSON lines and the folder; the first loss is that of a policy that is its own reference."""
    import trl

    row = {"question": "Write a row.", "status": "SUCCESS", "score": 0.5}
    rows = [row | {"answer": f'{{"a": {n}}}'} for n in range(8)]
    write_pickle(tmp_path / "pairs.pkl", rows)
    monkeypatch.chdir(tmp_path)
    options = ["--data", "pairs.pkl", "--folder", "pairs", "--output", "pairs.pref.jsonl"]
    monkeypatch.setattr("sys.argv", ["gen_dpo", *options])
    gen_dpo.main()

    tokenizer = init_model.train_tokenizer([row["answer"] for row in rows], 300)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    tokenizer.chat_template += "{% if add_generation_prompt %}<assistant>{% endif %}"
    scratch = Scratch(layers=1, width=32, heads=2, mlp_width=64).model_dump()
    init_model.make_model(scratch, tokenizer, 0).save_pretrained("model")
    tokenizer.save_pretrained("model")

    files = {"data_files": "pairs.pref.jsonl", "split": "train", "cache_dir": str(tmp_path / "cache")}
    for pairs in (datasets.load_from_disk("pairs")["train"], datasets.load_dataset("json", **files)):
        assert len(pairs) == 4
        config = trl.DPOConfig(output_dir="trl", max_steps=1, use_cpu=True, bf16=False, report_to="none")
        trainer = trl.DPOTrainer(model="model", args=config, train_dataset=pairs)
        assert trainer.train().metrics["train_loss"] == pytest.approx(0.6931, abs=1e-4)
