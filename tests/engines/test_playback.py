"""The engine of rehearsals: scripted answers, played through the model."""

import json

import pytest

from tests.workshop import small_llama, small_tokenizer
from workflow_scripts.config.sections import Generate
from workflow_scripts.core.errors import BadInput
from workflow_scripts.engines import Request, load

PROMPT = [5, 6, 7]


@pytest.fixture
def engine(tmp_path):
    """Return a function that makes the engine with scripted answers to one prompt."""

    def make(*answers, stop=(), ends=1):
        folder = tmp_path / "model"
        model = small_llama()
        model.generation_config.eos_token_id = ends
        model.save_pretrained(folder)
        small_tokenizer().save_pretrained(folder)
        script = [{"id": "a", "prompt_tokens": PROMPT, "answers": [{"turns": turns} for turns in answers]}]
        (tmp_path / "script_train.json").write_text(json.dumps(script))
        settings = Generate(script=str(tmp_path)).model_dump(mode="json")
        sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
        return load("playback", model=str(folder), settings=settings, sampling=sampling, stop=stop)

    return make


def request(tokens, max_tokens=20):
    return Request(tokens, 0, max_tokens)


def test_answers_to_one_prompt_take_turns(engine):
    played = engine(["w9"], ["w8"]).generate([request(PROMPT)] * 3)

    assert [completion.tokens for completion in played] == [[9, 1], [8, 1], [9, 1]]
    assert [completion.finish for completion in played] == ["eos"] * 3


def test_log_probs_are_those_of_the_model(engine):
    player = engine(["w9"])
    [played] = player.generate([request(PROMPT)])

    import torch

    ids = torch.tensor([PROMPT + played.tokens])
    logps = player.model(input_ids=ids).logits[0].log_softmax(-1)
    assert played.logps == pytest.approx([logps[2, 9].item(), logps[3, 1].item()], abs=1e-5)


def test_a_turn_that_ends_with_a_stop_string_waits_for_the_environment(engine):
    player = engine(["w9", "w8"], stop=("w9",))

    [first] = player.generate([request(PROMPT)])
    assert (first.tokens, first.finish) == ([9], "stop")

    [second] = player.generate([request([*PROMPT, 9, 20, 21])])
    assert (second.tokens, second.finish) == ([8, 1], "eos")


def test_an_answer_whose_end_the_model_does_not_know_counts_as_cut_off(engine):
    [played] = engine(["w9"], ends=3).generate([request(PROMPT)])
    assert (played.tokens, played.finish) == ([9, 1], "length")


def test_an_answer_ends_at_its_limit(engine):
    [played] = engine(["w9"]).generate([request(PROMPT, max_tokens=1)])
    assert (played.tokens, played.finish) == ([9], "length")


def test_the_model_itself_answers_an_unknown_prompt(engine):
    [played] = engine(["w9"]).generate([request([8, 8], max_tokens=4)])
    assert 1 <= len(played.tokens) <= 4
    assert len(played.logps) == len(played.tokens)


def test_without_scripts_it_tells_what_is_missing(engine, tmp_path):
    engine(["w9"])
    with pytest.raises(BadInput, match=r"generate\.script"):
        load(
            "playback",
            model=str(tmp_path / "model"),
            settings=Generate().model_dump(mode="json"),
            sampling={"temperature": 1.0, "top_p": 1.0, "top_k": 0},
            stop=(),
        )
