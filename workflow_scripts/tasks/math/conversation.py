"""Ask the questions of the task `math`, and run the policy's programs in its environment."""

from collections.abc import Sequence

from workflow_scripts.core.records import Piece
from workflow_scripts.core.sandbox import Sandbox
from workflow_scripts.rollout.environment import Conversation as Rollout
from workflow_scripts.rollout.environment import Environment, Turn
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.math.programs import OUTPUT, PROGRAM, shown

STOP = "```output"  # the policy writes this, the environment what follows
TRIGGERS = {"cot": "\nLet's reason step by step.\n", "pot": "\nLet's write a program.\n"}


class Conversation(defaults.Conversation):
    """auto: the question only, and the policy decides how to answer. trigger: the question and a request for a path."""

    triggers = TRIGGERS

    def environment(self, version: str, options: defaults.EnvironmentOptions) -> Environment:
        return ProgramRunner(options.isolate, options.programs)

    def segments(self, answer: str) -> list[Piece]:
        return segments(answer)


class ProgramRunner(Environment):
    """Runs the last program of an answer in the sandbox when the policy writes the stop string."""

    stop = (STOP,)

    def __init__(self, isolate: bool, programs: int = 1):
        """`programs` says how many programs run at the same time."""
        self.threads = programs
        self.sandbox = Sandbox(isolate=isolate, processes=programs)
        self.sandbox.__enter__()

    def reply(self, conversations: Sequence[Rollout]) -> list[Turn]:
        return [self.output(conversation.text) for conversation in conversations]

    def output(self, text: str) -> Turn:
        """Return the output of the last program in an unfinished answer; an answer without a program ends."""
        programs = PROGRAM.findall(text)

        if not text.endswith(STOP) or not programs:
            return Turn()

        return Turn(f"\n{shown(self.sandbox(programs[-1]))}\n```\n")

    def close(self) -> None:
        self.sandbox.__exit__()


def segments(text: str) -> list[Piece]:
    """Cut an answer that exists only as text: what follows "```output" was written by the environment."""
    pieces: list[Piece] = []
    start = 0

    for match in OUTPUT.finditer(text):
        pieces += [(text[start : match.start()], True), (match.group(), False)]
        start = match.end()

    pieces.append((text[start:], True))
    return [(piece, is_sampled) for piece, is_sampled in pieces if piece]
