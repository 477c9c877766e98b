"""TRL as a peer: our objectives have its losses and gradients, and it trains on our pairs. Run by `make test-trl`."""

from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch

pytest.importorskip("trl", reason="needs TRL's environment: make test-trl")

from benchmarks import training
from benchmarks.training import BATCH, make_model, trl_trainer
from tests.training.test_every_objective import scored_rows, tokens_of
from tests.workshop import logps_packed, make_rows, small_llama
from workflow_scripts import init_model
from workflow_scripts.config.sections import Scratch, Train
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.tasks.tabular import gen_dpo
from workflow_scripts.training import bins, objectives
from workflow_scripts.training.logps import load_policy, sampled_logps
from workflow_scripts.training.objectives import Tokens
from workflow_scripts.training.trainer import OF_TOKENS


@pytest.fixture(scope="module")
def dpo(tmp_path_factory):
    """Return TRL's DPO trainer, a batch of it, and our policy with the same batch. No margin is 0."""
    tmp_path = tmp_path_factory.mktemp("dpo")
    small = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 300, "intermediate_size": 128}
    training.SHAPES["small"] = small
    folder = make_model(tmp_path / "model", "small")
    rows = training.make_rows(BATCH, 300, pairs=True)

    theirs = trl_trainer("DPO", folder, rows, str(tmp_path / "trl"))
    with torch.no_grad():
        for parameter in theirs.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.02)
    theirs.model.save_pretrained(tmp_path / "moved")
    batch = theirs.data_collator([theirs.train_dataset[i] for i in range(BATCH // 2)])

    inputs = bins.collate(rows, 0)
    with torch.no_grad():
        inputs["reference"] = sampled_logps(load_policy(folder, "float32"), inputs)
    return theirs, batch, load_policy(str(tmp_path / "moved"), "float32"), inputs


def test_dpo_has_trls_loss_and_gradients(dpo):
    theirs, batch, policy, inputs = dpo
    loss = check_dpo(theirs, batch, policy, inputs, Train(objective="dpo", nll_weight=0, dpo_beta=theirs.beta))
    assert abs(loss - 0.6931) > 1e-3


def check_dpo(theirs, batch, policy, inputs, settings: Train) -> float:
    """Check that both losses and their gradients are equal, and return the loss."""
    theirs.model.zero_grad()
    policy.zero_grad()
    expected = theirs.compute_loss(theirs.model, batch)
    expected.backward()
    tokens = Tokens(sampled_logps(policy, inputs), *(inputs[name] for name in OF_TOKENS))
    total, _ = objectives.load(settings.objective).loss(tokens, settings)
    loss = total / (BATCH // 2)
    loss.backward()

    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for (name, ours), right in zip(policy.named_parameters(), theirs.model.parameters()):
        torch.testing.assert_close(ours.grad, right.grad, atol=1e-5, rtol=1e-4, msg=name)
    return loss.item()


def logps_of_pairs() -> tuple[Tokens, torch.Tensor, torch.Tensor]:
    """Return a bin of pairs, and the mean log-probs of its chosen and of its rejected answers, with gradients."""
    tokens = tokens_of(scored_rows())
    mean = tokens.sums(tokens.logp / tokens.length, "row")
    return tokens, mean[::2], mean[1::2]


@pytest.mark.parametrize(
    ("name", "options"),
    [("robust_dpo", {"label_smoothing": 0.1}), ("ipo", {})],
)
def test_variants_of_dpo_have_trls_loss_and_gradients(dpo, monkeypatch, name, options):
    trainer, batch, policy, inputs = dpo
    kind = {"robust_dpo": "robust", "ipo": "ipo"}[name]
    monkeypatch.setattr(trainer, "loss_types", [kind])
    monkeypatch.setattr(trainer, "label_smoothing", options.get("label_smoothing", 0.0))
    check_dpo(trainer, batch, policy, inputs, Train(objective=name, nll_weight=0, dpo_beta=trainer.beta, **options))


def test_simpo_has_trls_loss_and_gradients():
    from trl.experimental.cpo import CPOTrainer

    tokens, chosen, rejected = logps_of_pairs()
    values = {"beta": 2.0, "simpo_gamma": 0.7, "label_smoothing": 0.0, "alpha": 0.0, "loss_type": "simpo"}
    trainer = SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), **values)
    expected = CPOTrainer.cpo_loss(trainer, chosen, rejected)[0].sum()

    settings = Train(objective="simpo", dpo_beta=2.0, simpo_margin=0.7)
    check_same(objectives.load("simpo").loss(tokens, settings)[0], expected, tokens.logp)


def test_orpo_has_trls_loss_and_gradients():
    from trl.experimental.orpo import ORPOTrainer

    tokens, chosen, rejected = logps_of_pairs()
    trainer = SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), beta=0.3)
    chosen, rejected = chosen.float(), rejected.float()  # as TRL computes
    expected = -chosen.sum() - ORPOTrainer.odds_ratio_loss(trainer, chosen, rejected)[0].sum()

    settings = Train(objective="orpo", dpo_beta=0.3)
    check_same(objectives.load("orpo").loss(tokens, settings)[0], expected, tokens.logp)


def check_same(ours: torch.Tensor, theirs: torch.Tensor, logp: torch.Tensor) -> None:
    """Check that two losses and their gradients by the log-probs are equal."""
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    mine, right = (torch.autograd.grad(loss, logp, retain_graph=True)[0] for loss in (ours, theirs))
    torch.testing.assert_close(mine, right, atol=1e-5, rtol=0)


def test_kto_has_trls_loss_and_gradients(tmp_path, monkeypatch):
    import trl
    from transformers import AutoModelForCausalLM

    class Tokenised(trl.KTOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

    small_llama().save_pretrained(tmp_path / "model")
    rows = [row | {"mask": [1] * len(row["tokens"])} for row in make_rows(8)]
    policy = load_policy(str(tmp_path / "model"), "float32")
    with torch.no_grad():
        own = logps_packed(policy, rows)
    noise = torch.Generator().manual_seed(0)
    for row, logps in zip(rows, own):
        row["reference_logps"] = (logps + 0.2 * torch.randn(logps.shape, generator=noise)).numpy()
        row["start_kl"] = 0.25

    labels = [row["advantage"] > 0 for row in rows]
    data = [
        {"prompt_ids": row["prompt_tokens"], "completion_ids": row["tokens"], "label": label}
        for row, label in zip(rows, labels)
    ]
    config = trl.KTOConfig(
        output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to="none", beta=0.5,
        desirable_weight=1.5, undesirable_weight=0.5, per_device_train_batch_size=8,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    trainer = Tokenised(
        model=model, args=config, train_dataset=datasets.Dataset.from_list(data), processing_class=training.tokenizer()
    )
    sequences = [row["prompt_tokens"] + row["tokens"] for row in rows]
    masks = [[0] * len(row["prompt_tokens"]) + [1] * len(row["tokens"]) for row in rows]
    batch = {
        "input_ids": padded(sequences),
        "attention_mask": padded([[1] * len(sequence) for sequence in sequences]),
        "completion_mask": padded(masks),
        "label": torch.tensor(labels),
        "ref_logps": torch.tensor([row["reference_logps"].sum() for row in rows]),
        "ref_KL_logps": torch.zeros(8),
    }
    monkeypatch.setattr(trainer, "precompute_ref_logps", True)
    monkeypatch.setattr(trainer, "_compute_kl_logps", lambda *_: torch.full((8,), 0.25))  # the reference point
    expected = trainer._compute_loss(trainer.model, batch, False)
    expected.backward()

    inputs = bins.collate(rows, 0)
    tokens = Tokens(sampled_logps(policy, inputs), *(inputs[name] for name in OF_TOKENS))
    settings = Train(objective="kto", dpo_beta=0.5, desirable_weight=1.5, undesirable_weight=0.5)
    loss = objectives.load("kto").loss(tokens, settings)[0] / len(rows)
    loss.backward()

    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for (name, mine), right in zip(policy.named_parameters(), trainer.model.parameters()):
        torch.testing.assert_close(mine.grad, right.grad, atol=1e-5, rtol=1e-4, msg=name)


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
