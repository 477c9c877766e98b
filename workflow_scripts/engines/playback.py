"""An engine for rehearsals: it gives scripted answers, with their log-probs under the model.

A script says for a prompt what is answered, in turns (`workflow_scripts.rehearsal.script`). The answers to one prompt
alternate, so that a group has right and wrong ones. As in the other engines, an answer ends at a stop string, at a
token that ends the model's answers, or at its limit. A script's answer ends with the tokenizer's EOS: if that is no end
for the model, the answer counts as cut off. To a prompt without a script the model answers by itself, with few tokens.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.identity import digest
from workflow_scripts.engines import Completion, Request, transformers

PACKAGES = ("torch", "transformers")

FREE = 16  # tokens of an answer without a script

Turns = list[list[int]]  # the tokens of each turn of an answer


class Engine(transformers.Engine):
    """Plays the scripts in a folder (`generate.script`)."""

    def __init__(self, model: str, settings: dict[str, Any], sampling: dict[str, Any], stop: Sequence[str]):
        super().__init__(model, settings, sampling, stop)
        self.version = self.version | {"engine": "playback"}
        self.answers = self._read_scripts(settings["script"])
        self.lengths = sorted({length for length, _ in self.answers})
        self.counts: Counter[tuple[int, str]] = Counter()  # how often a prompt was answered

    def _read_scripts(self, folder: str | None) -> dict[tuple[int, str], list[Turns]]:
        """Return the answers by (length, digest) of the prompt's tokens."""
        if not folder:
            raise BadInput("generate.script: the engine playback needs the folder of its scripts")

        answers: dict[tuple[int, str], list[Turns]] = {}
        for path in sorted(Path(folder).glob("script_*.json")):
            for prompt in read_json(path):
                encoded = [[self._encode(text) for text in answer["turns"]] for answer in prompt["answers"]]
                answers[len(prompt["prompt_tokens"]), digest(prompt["prompt_tokens"])] = encoded
        return answers

    def _encode(self, text: str) -> list[int]:
        """Return the tokens of a turn. A turn that does not wait for the environment ends with EOS."""
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        waits = any(text.endswith(stop) for stop in self.stop)
        return tokens if waits else [*tokens, self.tokenizer.eos_token_id]

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return a completion of each request, in order."""
        return [self._continue(request) for request in requests]

    def _continue(self, request: Request) -> Completion:
        scripted = self._next_turn(request.tokens)
        if scripted is None:
            limit = min(FREE, request.max_tokens)
            return super().generate([Request(request.tokens, request.seed, limit)])[0]

        completion = Completion([], "length")
        for token in scripted[: request.max_tokens]:
            completion.tokens.append(token)
            if token in self.ends:
                completion.finish = "eos"
            elif self.may_stop[token] and self._has_stopped(completion.tokens):
                completion.finish = "stop"
            if completion.finish != "length":
                break

        completion.logps = self._logps(request.tokens, completion.tokens)
        return completion

    def _next_turn(self, context: list[int]) -> list[int] | None:
        """Return the tokens that follow a context by the script; None if the script knows nothing of it."""
        for length in reversed(self.lengths):
            key = (length, digest(context[:length]))
            if length > len(context) or key not in self.answers:
                continue

            answers = self.answers[key]
            if length == len(context):
                self.counts[key] += 1
                return answers[(self.counts[key] - 1) % len(answers)][0]

            for turns in answers:
                spoken = turns_spoken(turns, context[length:])
                if spoken:
                    return turns[spoken] if spoken < len(turns) else [self.tokenizer.eos_token_id]
            return None

        return None

    @torch.inference_mode()
    def _logps(self, context: list[int], tokens: list[int]) -> list[float]:
        """Return the log-probs of tokens behind a context, under logits / temperature."""
        ids = torch.tensor([context + tokens], device=self.device)
        logits = self.model(input_ids=ids, logits_to_keep=len(tokens) + 1).logits[0, :-1].float()
        logps = (logits / (self.sampling["temperature"] or 1.0)).log_softmax(-1)
        return logps.gather(-1, ids[0, len(context) :, None])[:, 0].tolist()


def turns_spoken(turns: Turns, tokens: list[int]) -> int:
    """Return how many turns of a scripted answer stand in the tokens since the prompt, in order, from the first on."""
    place = 0

    for number, turn in enumerate(turns):
        start = 0 if number == 0 else _find(turn, tokens, place)
        if start < 0 or tokens[start : start + len(turn)] != turn:
            return number
        place = start + len(turn)

    return len(turns)


def _find(part: list[int], tokens: list[int], start: int) -> int:
    """Return where a part begins in tokens, from `start` on; -1 if it is not there."""
    return next((i for i in range(start, len(tokens) - len(part) + 1) if tokens[i : i + len(part)] == part), -1)
