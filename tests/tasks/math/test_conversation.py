"""Test how the task asks, what its environment answers, and where texts are cut between policy and environment."""

import pytest

from workflow_scripts import tasks
from workflow_scripts.rollout.environment import Conversation
from workflow_scripts.tasks.defaults import EnvironmentOptions
from workflow_scripts.tasks.math.conversation import STOP, TRIGGERS, segments

ANSWER = "```python\nprint(3 * 50)\n```\n```output\n150\n```\nHe gathered $\\boxed{50}$ apples."


@pytest.fixture(scope="module")
def environment():
    with tasks.load("math", "Conversation").environment("auto", EnvironmentOptions()) as environment:
        yield environment


def replies(environment, *texts: str) -> list[str | None]:
    """Return what the environment says to unfinished answers."""
    prompt = {"id": "q", "question": "?", "reference": "1", "level": "a"}
    conversations = [Conversation(f"q.auto.{i}", prompt, text=text) for i, text in enumerate(texts)]
    return [turn.text for turn in environment.reply(conversations)]


def test_auto_asks_the_question_alone_and_trigger_asks_for_each_path():
    prompt = {"id": "q", "question": "What is 3 + 4?", "reference": "7", "level": "a"}
    conversation = tasks.load("math", "Conversation")

    assert conversation.requests(prompt, "auto") == conversation.requests(prompt, "eval") == {"auto": "What is 3 + 4?"}
    expected = {path: "What is 3 + 4?" + TRIGGERS[path] for path in ("cot", "pot")}
    assert conversation.requests(prompt, "trigger") == expected


def test_the_environment_runs_the_last_program(environment):
    first = f"```python\nprint(1)\n```\n{STOP}\n1\n```\n"

    assert environment.stop == (STOP,)
    assert replies(environment, f"```python\nprint(6 * 7)\n```\n{STOP}") == ["\n42\n```\n"]
    assert replies(environment, f"{first}```python\nprint(2)\n```\n{STOP}") == ["\n2\n```\n"]
    [text] = replies(environment, f"```python\n1 / 0\n```\n{STOP}")
    assert "ZeroDivisionError" in text


def test_an_answer_without_a_program_ends(environment):
    assert replies(environment, STOP, "The answer is 3.") == [None, None]


def test_texts_are_cut_where_the_environment_spoke():
    assert segments(ANSWER) == [
        ("```python\nprint(3 * 50)\n```\n```output", True),
        ("\n150\n```\n", False),
        ("He gathered $\\boxed{50}$ apples.", True),
    ]
    assert "".join(text for text, _ in segments(ANSWER)) == ANSWER
