"""Dialogues with the seeker: when they end, what they earn, and how they become tokens."""

import math

import pytest

from tests.tasks.recommend.parts import (
    NOT_THESE,
    RIGHT,
    WRONG,
    catalogue_of,
    environment,
    grading,
    prompt,
    rollout,
    turns,
)
from workflow_scripts.core.chat import continuation, encode_turns
from workflow_scripts.engines import Completion
from workflow_scripts.rollout.environment import Conversation as Rollout
from workflow_scripts.rollout.feeding import play_all
from workflow_scripts.rollout.loop import TextSpeaker, TokenSpeaker, converse, encode_foreign, play
from workflow_scripts.tasks.recommend import players
from workflow_scripts.tasks.recommend.evaluation import Evaluation
from workflow_scripts.tasks.recommend.outcomes import is_hit, outcome_of, rank_metrics, ranks

# ---------------------------------------------------------------- the environment


@pytest.mark.parametrize(
    ("version", "hardcore", "ends"), [("auto", False, False), ("auto", True, True), ("eval", True, False)]
)
def test_a_dialogue_ends_at_a_hit_and_with_osr_at_the_first_list(path, version, hardcore, ends):
    seeker = environment(path, version, hardcore=hardcore)
    right, wrong, question = seeker.reply([rollout(RIGHT), rollout(WRONG), rollout("What decade do you like?")])
    assert right.text is None and not right.rejected
    assert wrong.text == (None if ends else NOT_THESE)
    assert question.text == "I like seventies (decade)."


def test_a_question_is_no_hit_though_it_resembles_a_title(path):
    catalogue = catalogue_of(path)
    assert is_hit(catalogue, ranks(catalogue, "Do you like harbours?", ["Harbor"]))  # by similarity alone
    assert not outcome_of(catalogue, turns("Do you like harbours?"), ["Harbor"]).success


def test_a_dialogue_is_judged_by_its_first_hit(path):
    catalogue = catalogue_of(path)
    dialogue = turns("What decade?", "seventies", WRONG, "No.", RIGHT)
    outcome = outcome_of(catalogue, dialogue, ["Harbor", "Silver Harbor"])
    assert (outcome.success, outcome.interactions, outcome.ranks[0]) == (True, 3, 2)

    failed = outcome_of(catalogue, turns(WRONG, "No.", "And now?"), ["Harbor"])
    assert (failed.success, failed.interactions) == (False, 2) and failed.ranks[0] > 2


def test_the_form_of_lists(path):
    texts = (RIGHT, RIGHT + "\n3. Silver Harbor", "1. Harbor", "What?")
    faults = [environment(path).fault(rollout(text)) for text in texts]
    assert faults == [None, *["a list that is not numbered from 1 to 2"] * 2, None]
    assert environment(path, off_formatcheck=True).fault(rollout("1. Harbor")) is None
    assert environment(path, rec_format_check=True).fault(rollout("What?")) == "nothing is recommended"
    assert environment(path, "eval", rec_format_check=True).fault(rollout("1. Harbor")) is None


def test_rewards_of_dialogues(path):
    def grade(*texts, fault=None, **changes):
        answer = {"turns": turns(*texts), "reference": ["Harbor"]} | ({"fault": fault} if fault else {})
        return grading(path, **changes).grade(answer, None)

    assert grade(RIGHT)["reward"] == 1 and grade(RIGHT)["reranked"] is None
    assert grade("What decade?", "seventies", RIGHT, bonus=0.5)["reward"] == 1.25
    assert grade(WRONG)["reward"] == 0 and grade(WRONG, reward=0.7)["reward"] == -0.7
    spoilt = grade(RIGHT, fault="a list that is not numbered from 1 to 2", reward=0.7)
    assert spoilt["reward"] == -0.7 and spoilt["success"]
    assert grade(RIGHT, rerank=True)["reranked"] == "You may like:\n1. Harbor\n2. Quiet Garden"
    assert grade(RIGHT, "Thanks.", "Bye.", rerank=True)["reranked"] is None  # the hit is not the last utterance


def test_metrics_of_ranks_by_hand():
    assert rank_metrics([1, 6, None, 12]) == pytest.approx(
        {"hit_1": 1 / 4, "hit_5": 1 / 4, "hit_10": 2 / 4, "mrr": (1 + 1 / 6 + 1 / 12) / 4}
        | {"ndcg_10": (1 + 1 / math.log2(7)) / 4}
    )
    answers = [
        {"level": "a", "success": True, "interactions": 2, "ranks": [1]},
        {"level": "b", "success": False, "interactions": 3, "ranks": [None]},
    ]
    evaluation = Evaluation({}, {})
    summary = evaluation.summarise(answers)
    assert (summary["success"], summary["turns"], summary["success_by_turn"]) == (0.5, 2.5, [0, 0.5])
    assert (summary["mrr"], summary["n"]) == (0.5, 2)
    assert set(summary["by_level"]["b"]) >= set(evaluation.metrics)


# ---------------------------------------------------------------- rollouts


class Engine:
    """An engine that says its lines, one per request."""

    version: dict = {}  # noqa: RUF012
    window = 4096

    def __init__(self, tokenizer, lines):
        self.tokenizer = tokenizer
        self.lines = list(lines)
        self.requests = []

    def generate(self, requests):
        self.requests += requests
        tokens = [self.tokenizer.encode(self.lines.pop(0)) + [self.tokenizer.eos_token_id] for _ in requests]
        return [Completion(ids, "eos", [-0.5] * len(ids)) for ids in tokens]


SAMPLING = {"turns": 2, "max_tokens": 200}


def rollouts(count=1) -> list[Rollout]:
    return [Rollout(f"q.auto.{number}", prompt()) for number in range(count)]


def played(engine, seeker, count=1) -> list[Rollout]:
    """Return dialogues of the policy with the seeker."""
    tokens = engine.tokenizer.encode("User:A western, please.\n\nAssistant:")

    async def play_one(conversation, complete, answer):
        def speaker_of(seed):
            return TokenSpeaker(engine, complete, tokens, seeker, "deepseek", seed, SAMPLING["max_tokens"])

        return await play(conversation, speaker_of, seeker, answer, SAMPLING["turns"], "0")

    return play_all(rollouts(count), engine, seeker, play_one)


def sampled(tokenizer, path, *lines) -> Rollout:
    """Return a dialogue in which the policy says these lines."""
    return played(Engine(tokenizer, lines), environment(path))[0]


def test_a_rollout_is_tokenised_as_the_cold_start_was(path, tokenizer):
    conversation = sampled(tokenizer, path, "What decade do you like?", RIGHT)
    assert [turn["content"] for turn in conversation.turns][1] == "I like seventies (decade)."

    messages = [{"role": "user", "content": "A western, please."}, *conversation.turns]
    learnt = encode_turns(tokenizer, "deepseek", messages, 1)
    assert (conversation.tokens, conversation.mask) == (learnt["tokens"], learnt["mask"])

    masked = [token for token, own in zip(conversation.tokens, conversation.mask) if not own]
    assert tokenizer.decode(masked) == "User:I like seventies (decade).\n\nAssistant:"
    assert len(conversation.logps) == sum(conversation.mask)


def test_a_teacher_in_the_policys_place_gives_the_same_tokens(path, tokenizer):
    class Teacher:
        def generate(self, chats):
            texts = {1: "What decade do you like?", 3: RIGHT}
            return [players.Reply(texts[len(chat.messages)], "eos", None, 5) for chat in chats]

    seeker = environment(path)
    conversations = rollouts()
    request = [{"role": "user", "content": "A western, please."}]

    async def play_one(conversation, complete, answer):
        speaker = TextSpeaker(complete, request, seeker, 200, "0")
        await converse(conversation, speaker, seeker, answer, SAMPLING["turns"])

    play_all(conversations, Teacher(), seeker, play_one)
    encode_foreign(conversations[0], [], seeker, tokenizer, "deepseek")

    expected = sampled(tokenizer, path, "What decade do you like?", RIGHT)
    for field in ("tokens", "mask", "turns"):
        assert getattr(conversations[0], field) == getattr(expected, field)
    assert conversations[0].logps == []


def test_the_seeker_has_no_last_word(path, tokenizer):
    conversation = sampled(tokenizer, path, "What decade do you like?", "What genre do you like?")
    assert [turn["role"] for turn in conversation.turns] == ["assistant", "user", "assistant"]


@pytest.mark.parametrize("form", ["chatml", "llama"])
def test_what_the_seeker_says_is_written_by_the_chat_template(tokenizer, form):
    mark = {"chatml": "<|im_start|>{}\n", "llama": "<|{}|>\n\n"}[form]
    body = "{% for m in messages %}" + mark.format("{{ m['role'] }}") + "{{ m['content'] }}<eos>\n{% endfor %}"
    tokenizer.chat_template = body + "{% if add_generation_prompt %}" + mark.format("assistant") + "{% endif %}"
    expected = f"\n{mark.format('user')}Hi there<eos>\n{mark.format('assistant')}"
    assert continuation(tokenizer, "chat", "Hi there") == expected


def test_a_rollout_of_the_wrong_form_is_drawn_again_a_bounded_number_of_times(path, tokenizer):
    seeker = environment(path, hardcore=True)
    engine = Engine(tokenizer, ["1. Harbor", "1. Harbor", RIGHT, "1. Harbor", "1. Harbor"])
    finished = played(engine, seeker, 2)
    assert [(conversation.draws, bool(conversation.fault)) for conversation in finished] == [(2, False), (3, True)]
    assert len({request.seed for request in engine.requests}) == 5  # no seed is repeated

    grades = [
        grading(path).grade({"turns": conversation.turns, "reference": ["Harbor"], "fault": conversation.fault}, None)
        for conversation in finished
    ]
    assert [grade["reward"] for grade in grades] == [1, 0] and grades[1]["success"]


class SpoilingSeeker(players.ScriptedSeeker):
    """A seeker whose answer in the first dialogue cannot be used."""

    def answer(self, dialogues):
        replies = super().answer(dialogues)
        return [players.Reply("", "eos", "empty", 0), *replies[1:]]


def test_a_rollout_that_the_seeker_spoils_is_a_reject(path, tokenizer):
    seeker = environment(path)
    seeker.seeker = SpoilingSeeker(seeker.catalogue)
    engine = Engine(tokenizer, ["What decade do you like?"] * 2 + [RIGHT])
    finished = played(engine, seeker, 2)
    assert finished[0].rejected == "the seeker: empty" and not finished[1].rejected
