"""Check that prompts, answers and the environment's texts fit into the model's context and into training rows."""

from collections.abc import Iterator

from workflow_scripts.core.sandbox import DEFAULTS
from workflow_scripts.core.templates import render
from workflow_scripts.core.tokens import encode_prompt
from workflow_scripts.rehearsal.findings import Finding, by_share, percent
from workflow_scripts.rehearsal.rehearsed import Rehearsed, sample

OUTPUT = "1234 " * (DEFAULTS["output_bytes"] // 5)  # as much as a program may print
SPLITS = {"auto": "train", "trigger": "train", "eval": "eval", "pool": "pool"}


def check(rehearsed: Rehearsed) -> Iterator[Finding]:
    """Yield what does not fit."""
    if not rehearsed.model_folder:
        return

    if not rehearsed.has_own_tokenizer:
        text = "the tokenizer was trained on the data, so counts of tokens are estimates."
        yield Finding("know", "model", text, "With the model's own small files in the hub's cache they are exact.")

    for version in rehearsed.recipe.versions:
        if getattr(rehearsed.recipe.generate, version):
            yield from prompts_of(rehearsed, version)


def prompts_of(rehearsed: Rehearsed, version: str) -> Iterator[Finding]:
    """Yield which prompts of a version leave no room for answers."""
    lengths = prompt_lengths(rehearsed, version)
    if not lengths:
        return

    sampling = getattr(rehearsed.recipe.generate, version)
    place = f"generate.{version}"
    yield from judge(lengths, sampling.max_tokens, rehearsed.window, place)

    recipe = rehearsed.recipe
    longest = recipe.train.max_length
    if version in ("auto", "trigger") and not (recipe.data.source or recipe.data.max_length):
        long = sum(length + sampling.max_tokens > longest for length in lengths)
        if long:
            text = (
                f"with an answer of max_tokens {sampling.max_tokens}, {percent(long, len(lengths))} rows would be "
                f"longer than train.max_length {longest}, and training leaves such rows out after they have "
                "counted for advantages; data.max_length cuts them before."
            )
            yield Finding("waste" if long / len(lengths) > 0.1 else "know", place, text)

    yield from outputs(rehearsed, version, lengths)


def judge(lengths: list[int], max_tokens: int, window: int, place: str) -> Iterator[Finding]:
    """Yield how many prompts of these lengths (tokens) do not fit into a window, alone or with their answers."""
    alone = sum(length + 1 > window for length in lengths)
    cut = sum(length + max_tokens > window for length in lengths)

    if alone:
        text = f"{percent(alone, len(lengths))} prompts are longer than the model's context of {window} tokens."
        yield Finding(by_share(alone / len(lengths), failing=0.01), place, text, "Leave them out.")
    if cut > alone:
        text = f"{percent(cut, len(lengths))} prompts leave less than max_tokens {max_tokens} of {window} tokens."
        yield Finding("waste", place, text, "Their answers may be cut off.")

    text = f"prompts have {min(lengths)} to {max(lengths)} tokens, the context {window}."
    yield Finding("know", place, text)


def outputs(rehearsed: Rehearsed, version: str, lengths: list[int]) -> Iterator[Finding]:
    """Yield whether what the environment may write fits into the window."""
    sampling = getattr(rehearsed.recipe.generate, version)
    if sampling.turns < 2 or not rehearsed.part("Grading", "grade").runs_programs:
        return

    tokens = len(rehearsed.tokenizer.encode(OUTPUT, add_special_tokens=False))
    if max(lengths) + tokens <= rehearsed.window:
        return

    text = (
        f"a program may print {DEFAULTS['output_bytes']:,} bytes, about {tokens:,} tokens, but the context has "
        f"{rehearsed.window}."
    )
    if sampling.reply_tokens:
        text += f" Its output is cut to {sampling.reply_tokens} tokens (reply_tokens)."
        yield Finding("know", f"generate.{version}", text)
    else:
        advice = "Such an answer ends there. Set reply_tokens here, so that long outputs are cut in the middle."
        yield Finding("waste", f"generate.{version}", text, advice)


def prompt_lengths(rehearsed: Rehearsed, version: str) -> list[int]:
    """Return the tokens of a sample of the prompts of a version, each as it is asked."""
    split = SPLITS[version]
    prompts = sample(rehearsed.prompts(split))
    conversation = rehearsed.part("Conversation", "generate_eval" if version == "eval" else "generate")
    lengths = []

    for prompt in prompts:
        for request in conversation.requests(prompt, version).values():
            text = render(rehearsed.recipe.full_template, request, rehearsed.tokenizer)
            lengths.append(len(encode_prompt(rehearsed.tokenizer, text)))

    return lengths
