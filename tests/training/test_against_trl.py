"""TRL as a peer: our DPO has its loss and gradients, and it trains on our pairs. Run by `make test-trl`."""

import datasets
import pytest
import torch

pytest.importorskip("trl", reason="needs TRL's environment: make test-trl")

from benchmarks import training
from benchmarks.training import BATCH, make_model, make_rows, trl_trainer
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
    rows = make_rows(BATCH, 300, pairs=True)

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
