"""What a round learns from, and the prompts that it starts from."""

import pytest

from tests.tasks.recommend.parts import RIGHT, WRONG, grading, prompt, settings, turns
from workflow_scripts.config.sections import Prompts as PromptsSection
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_parquet
from workflow_scripts.core.identity import digest
from workflow_scripts.core.records import read_records
from workflow_scripts.freeze_prompts import check_edited
from workflow_scripts.tasks import load as load_part
from workflow_scripts.tasks.recommend import add_base_turn, invented, make_sft_data
from workflow_scripts.tasks.recommend.dialogues import canonical, instructed
from workflow_scripts.tasks.recommend.prompts import Prompts
from workflow_scripts.tasks.recommend.selection import Selection

# ---------------------------------------------------------------- rows


def graded(path, uid, text, tokenizer, targets=("Harbor",), request="A western, please.", **changes) -> dict:
    tokens = tokenizer.encode(text) + [tokenizer.eos_token_id]
    answer = {
        **prompt(targets, request),
        "uid": uid,
        "prompt_text": "r",
        "answer": text,
        "prompt_tokens": [1],
        "tokens": tokens,
        "mask": [1] * len(tokens),
        "policy": "p",
        "finish": "eos",
        "turns": turns(text),
    }
    return answer | grading(path, **changes).grade(answer, None)


def encoder(tokenizer):
    def encode(pieces):
        ids = [token for text, _ in pieces for token in tokenizer.encode(text)] + [tokenizer.eos_token_id]
        return ids, [1] * len(ids)

    return encode


DATA = {"advantage": "group", "advantage_clip": None, "std_epsilon": 0.0}


def test_a_rewritten_list_is_a_foreign_row_of_its_own(path, tokenizer):
    answers = [
        graded(path, f"a{i}", text, tokenizer, rerank=True) for i, text in enumerate([RIGHT, "1. Élan (1999)\n2. X"])
    ]
    selection = Selection({}, {})
    meta = selection.construct_meta(answers, False)
    rows, dropped = selection.select({"auto": meta}, DATA, 0, encoder(tokenizer))

    assert not dropped and [(row["uid"], row["policy"], row["advantage"], row["kind"]) for row in rows] == [
        ("a0", "p", 0.5, "auto"),
        ("a1", "p", -0.5, "auto"),
        ("a0.reranked", "foreign", 0.5, "auto.reranked"),
    ]
    assert tokenizer.decode(rows[2]["tokens"]) == "You may like:\n1. Harbor\n2. Quiet Garden<eos>"
    assert rows[0]["tokens"] == answers[0]["tokens"]  # what was sampled stays as it was

    plain = selection.construct_meta([graded(path, "a0", RIGHT, tokenizer)], False)
    assert [answer["reranked"] for entry in plain.values() for answer in entry["answers"]] == [None]


def test_rows_are_ordered_by_the_json_text_of_the_dialogue_and_grouped_with_their_targets(path, tokenizer):
    """Between "W" and a quotation mark, JSON orders the other way round than plain text, for its backslash."""
    prompts = [(["Silver Harbor"], "A Western?"), (["Harbor"], 'A "Western"?'), (["Harbor"], "A Western?")]
    answers = []
    for number, (targets, request) in enumerate(prompts):
        for sample, text in enumerate((RIGHT, WRONG)):
            answers.append(graded(path, f"{number}.{sample}", text, tokenizer, targets, request))

    selection = Selection({}, {})
    meta = selection.construct_meta(answers, False)
    rows, _ = selection.select({"auto": meta}, DATA | {"advantage": "raw"}, 0, encoder(tokenizer))
    assert [row["uid"] for row in rows] == ["2.0", "2.1", "0.0", "0.1", "1.0", "1.1"]
    assert len({row["prompt_id"] for row in rows}) == 3


def taught(**changes) -> list[list[dict]]:
    line = {"id": "d", "rec_success": True, "generated_dialog": turns("a", "b", "c", "d", "e", "f", RIGHT)}
    line["base_turn"] = add_base_turn.base_turn(line)
    return [make_sft_data.taught_messages(line, settings(explore={}, **changes), 2, seed) for seed in range(20)]


def test_a_rollout_may_begin_with_the_teacher():
    assert {len(start) for start in taught()} == {0}
    assert all(start == turns("a", "b", "c", "d") for start in taught(tgi=True))  # 4 interactions, 2 remain
    assert {len(start) for start in taught(new_tgi=True)} == {0, 2, 4}


def test_a_prompt_that_the_teacher_began_is_consistent():
    start = turns("What decade?", "The sixties.")
    line = {"id": prompt()["id"], "base_turn": 3, "generated_dialog": [*start, *turns("a", "b", RIGHT)]}
    pool = {line["id"]: prompt(instruction="Be brief.") | {"id": line["id"]}}
    values = settings(explore={}, tgi=True)
    (longer,) = make_sft_data.train_prompts([line], pool, values, 2, 0)

    assert longer["dialog"] == [*pool[line["id"]]["dialog"], *start]
    assert longer["messages"] == instructed(longer["dialog"], "Be brief.")
    assert longer["question"].splitlines() == [
        "Seeker: A western, please.",
        "Recommender: What decade?",
        "Seeker: The sixties.",
    ]
    assert longer["reference"] == ["Harbor"]


# ---------------------------------------------------------------- prompts


def section(**splits) -> dict:
    return PromptsSection.model_validate(splits).model_dump(mode="json")


def test_beginnings_are_disjoint_and_seeded():
    values = section(pool={"count": {"genre": 200}}, eval={"count": {"genre": 100}})
    task = Prompts({}, {})
    pool, held_out = (list(task.read(values[name], name, 0)) for name in ("pool", "eval"))
    assert pool == list(task.read(values["pool"], "pool", 0))
    assert len({task.key(made_up) for made_up in pool + held_out}) == 300
    assert {made_up["reference"][0] for made_up in pool} <= {film["title"] for film in invented.items()}
    with pytest.raises(BadInput, match=r"prompts\.eval\.count\.genre: 601 dialogues .*600"):
        list(invented.dialogues("genre", "eval", 601, 0))


def test_equal_beginnings_with_other_targets_are_other_prompts():
    first, second = prompt(["Harbor"]), prompt(["Silver Harbor"])
    task = Prompts({}, {})
    assert first["question"] == second["question"] == "Seeker: A western, please."
    assert first["id"] != second["id"] and task.key(first) != task.key(second)
    assert task.key(first) == canonical(first["dialog"], ["Harbor"])
    beginning = {"dialog": first["dialog"], "target_items": ["Harbor"]}
    assert first["id"] == digest(beginning)
    assert prompt(instruction="Be brief.")["id"] == digest(beginning | {"instruction": "Be brief."})


def test_the_instruction_stands_before_the_first_words():
    dialog = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
    conversation = load_part("recommend", "Conversation")
    made = Prompts({"instruction": "Be brief.", "history": 2}, {}).prompt(dialog, ["X"], "l")
    assert conversation.requests(made, "auto")["auto"] == [{"role": "user", "content": "Be brief."}, *dialog[1:]]
    assert made["dialog"] == dialog[1:]
    assert instructed(dialog, "Be brief.")[0]["content"] == "Be brief.\n\nuser"
    with pytest.raises(BadInput, match=r"set generate.trigger to null"):
        conversation.requests(made, "trigger")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"reference": []}, "no answer"),
        ({"dialog": []}, "no dialog"),
        ({"messages": [{"role": "user"}]}, "no messages"),
        ({"dialog": [{"role": "user", "content": "A film, please."}]}, "the question occurs before"),
    ],
)
def test_prompts_edited_by_hand_are_validated(tmp_path, change, reason):
    texts = ("A western, please.", "A comedy, please.", "A film, please.")
    prompts = [prompt(text=text) for text in texts]
    write_parquet(tmp_path / "train.parquet", prompts)
    prompts = list(read_records(tmp_path / "train.parquet"))
    task = Prompts({}, {})
    check_edited(task, "train.parquet", "train", "nowhere.parquet", prompts)

    faulty = prompts[::-1]
    faulty[2] = faulty[2] | change
    with pytest.raises(BadInput, match=rf"train.parquet, row 2 .*{reason}"):
        check_edited(task, "train.parquet", "train", "nowhere.parquet", faulty)
