"""An engine that samples from a slightly other distribution: what corrects for it, and what stops the round."""

import math

import numpy as np
import pytest
import torch

from workflow_scripts.config.sections import Train
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_json
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.init_model import make_model, train_tokenizer
from workflow_scripts.training.bins import collate
from workflow_scripts.training.mismatch import correct, weights

SCRATCH = {"layers": 4, "width": 64, "heads": 2, "mlp_width": 128, "context": 64, "init_std": 0.3}
LOG_RATIO = np.log([0.25, 1.0, 4.0])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("token", [0.25, 1.0, 2.0]), ("sequence", [1.0, 1.0, 1.0]), ("mask", [0.0, 1.0, 0.0])],
)
def test_weights_by_hand(kind, expected):
    assert weights(LOG_RATIO, kind, 2.0) == pytest.approx(expected)


def test_a_sequence_has_the_capped_product_of_its_ratios():
    assert weights(np.log([2.0, 3.0]), "sequence", 4.0) == pytest.approx([4.0, 4.0])
    assert weights(np.log([0.5, 0.5]), "sequence", 4.0) == pytest.approx([0.25, 0.25])


@torch.inference_mode()
def test_the_correction_removes_the_bias_of_an_engine_in_bf16():
    """The expectation is exact: a sum over the whole vocabulary, under both distributions."""
    tokenizer = train_tokenizer(["What is 3 + 4? The answer is 7."] * 10, 300)
    model = make_model(SCRATCH, tokenizer, 0)
    ids = torch.tensor([tokenizer.encode("What is 3 + 4?")])

    scored = model(ids).logits[0, -1].double().log_softmax(-1)
    sampled = model.bfloat16()(ids).logits[0, -1].double().log_softmax(-1)
    value = torch.randn(len(scored), generator=torch.Generator().manual_seed(0)).double()

    expectation = (scored.exp() * value).sum()
    correction = torch.from_numpy(weights((scored - sampled).numpy(), "token", 2.0)).double()
    bias = abs((sampled.exp() * value).sum() - expectation)
    corrected = abs((sampled.exp() * correction * value).sum() - expectation)

    print(f"bias {bias:.2e} without and {corrected:.2e} with the correction, of {expectation:.4f}")
    assert bias > 1e-4
    assert corrected < bias / 100


def test_advantages_are_multiplied_token_by_token():
    row = {"prompt_tokens": [1], "tokens": [2, 3, 4], "mask": [1, 0, 1], "advantage": -2.0}
    corrected = row | {"correction": np.array([0.5, 2.0], np.float32)}
    assert collate([row, corrected], 0)["advantage"].tolist() == [-2.0, -2.0, -1.0, -4.0]
    assert collate([row, row], 0)["advantage"].tolist() == [-2.0] * 4


# ---------------------------------------------------------------- rows and answers


def compared(folder, distance: float, engine: dict | None = None, is_cut: bool = False, **settings):
    """Return rows whose scored log-probs are higher than the sampled ones by `distance`, and the measured mismatch.

    If `is_cut`, the rows have the first of the answers' two tokens only.
    """
    answers, rows = [], []
    for number in range(4):
        answer = {"uid": f"a{number}", "prompt_tokens": [1], "tokens": [2, 3], "sampled_logps": [-1.0, -2.0]}
        answers.append(answer)
        scored = {"behaviour_logps": np.array([-1.0, -2.0]) + distance, "foreign": False}
        rows.append({**answer, "mask": [1, 1], **scored})

    if is_cut:
        for row in rows:
            row |= {"tokens": [2], "mask": [1], "behaviour_logps": row["behaviour_logps"][:1]}
    answers[1]["sampled_logps"] = []  # of an engine without log-probs
    rows[2]["foreign"] = True
    rows[3]["prompt_tokens"] = [9]  # rendered by another template
    write_pickle(folder / "1_0.pkl", answers)
    write_json(folder / "1_0.json", {"engine": engine or {}})
    return rows, correct(rows, [str(folder / "1_0.pkl")], Train(**settings))


def test_own_rows_are_corrected_and_others_are_not(tmp_path):
    rows, metrics = compared(tmp_path, math.log(1.5), correction="token")
    assert rows[0]["correction"] == pytest.approx([1.5, 1.5])
    assert "correction" not in rows[1] and "correction" not in rows[2]
    assert metrics["tokens"] == 4
    assert metrics["mean_distance"] == pytest.approx(math.log(1.5))
    assert metrics["mean_ratio"] == metrics["mean_correction"] == pytest.approx(1.5)

    rows, metrics = compared(tmp_path, 0.01, max_mismatch=0.1)
    assert not any("correction" in row for row in rows)
    assert metrics["mean_distance"] == pytest.approx(0.01)


def test_rows_that_were_cut_are_compared_with_the_beginning_of_their_answer(tmp_path):
    rows, metrics = compared(tmp_path, math.log(1.5), is_cut=True, correction="token")
    assert rows[0]["correction"] == pytest.approx([1.5])
    assert metrics["tokens"] == 2


def test_the_gate_stops_the_round_and_says_what_may_be_the_cause(tmp_path):
    engine = {"engine": "vllm", "vllm": "0.32.0", "dtype": "bfloat16"}
    with pytest.raises(BadInput) as error:
        compared(tmp_path, 0.5, engine, max_mismatch=0.1)

    message = str(error.value)
    assert "differ by 0.5 per token, more than train.max_mismatch 0.1" in message
    assert "1 of 2 rows have another prompt than the engine answered (the template?)" in message
    assert "the engine computed in bfloat16, training computes in float32" in message
    assert "the engine was vllm (vllm 0.32.0)" in message


def test_without_log_probs_of_an_engine_nothing_is_corrected(tmp_path, capsys):
    write_pickle(tmp_path / "none.pkl", [])
    assert (
        correct([{"uid": "a", "tokens": [2], "foreign": False}], [str(tmp_path / "none.pkl")], Train(correction="mask"))
        == {}
    )
    assert "the mismatch is unknown, and nothing is corrected" in capsys.readouterr().err
