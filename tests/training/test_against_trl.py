"""Our DPO is TRL's: run in an environment that has TRL, by `make test-trl`."""

import datasets
import pytest
import torch

pytest.importorskip("trl", reason="needs TRL's environment: make test-trl")

from benchmarks.training import BATCH, make_model, make_rows, trl_trainer
from workflow_scripts import gen_dpo, init_model
from workflow_scripts.core.records import write_pickle
from workflow_scripts.core.sections import Scratch, Train
from workflow_scripts.training import bins
from workflow_scripts.training.logps import load_policy, sampled_logps
from workflow_scripts.training.objectives import OBJECTIVES, Tokens


def test_dpo_has_trls_loss_and_gradients(tmp_path, monkeypatch):
    """On a policy that has left its reference, so that no margin is 0."""
    from benchmarks import training

    small = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 300, "intermediate_size": 128}
    monkeypatch.setitem(training.SHAPES, "small", small)
    folder, rows = make_model(tmp_path / "model", "small"), make_rows(BATCH, 300, pairs=True)
    theirs = trl_trainer("DPO", folder, rows, str(tmp_path / "trl"))
    with torch.no_grad():
        for parameter in theirs.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.02)
    theirs.model.save_pretrained(tmp_path / "moved")
    batch = theirs.data_collator([theirs.train_dataset[i] for i in range(BATCH // 2)])
    expected = theirs.compute_loss(theirs.model, batch)
    expected.backward()

    inputs, reference = bins.collate(rows, 0), load_policy(folder, "float32")
    with torch.no_grad():
        inputs["reference"] = sampled_logps(reference, inputs)
    policy = load_policy(str(tmp_path / "moved"), "float32")
    names = ("behaviour", "reference", "advantage", "foreign", "length", "row", "pair")
    tokens = Tokens(sampled_logps(policy, inputs), *(inputs[name] for name in names))
    total, _ = OBJECTIVES["dpo"](tokens, Train(objective="dpo", nll_weight=0, dpo_beta=theirs.beta))
    loss = total / (BATCH // 2)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5) and abs(loss.item() - 0.6931) > 1e-3
    for (name, ours), right in zip(policy.named_parameters(), theirs.model.parameters()):
        torch.testing.assert_close(ours.grad, right.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_trl_trains_on_the_pairs_that_a_round_of_tables_leaves(tmp_path, monkeypatch):
    """Both forms, the JSON lines and the folder; the first loss is that of a policy that is its own reference."""
    import trl

    row = {"instruction": "Write a row.", "status": "SUCCESS", "score": 0.5}
    rows = [row | {"output": f'{{"a": {n}}}'} for n in range(8)]
    write_pickle(tmp_path / "pairs.pkl", rows)
    options = ["--data", "pairs.pkl", "--folder", "pairs", "--output", "pairs.pref.jsonl"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["gen_dpo", *options])
    gen_dpo.main()
    tokenizer = init_model.train_tokenizer([one["output"] for one in rows], 300)
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
