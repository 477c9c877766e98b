"""Provide the model that round 0 starts from, as checkpoints/init: a link to an existing model, or a small new Llama.

A model from scratch is a LlamaForCausalLM with random weights and a byte-level BPE tokenizer, which is trained on the
texts of the cold start. Each digit is a token of its own, and any text can be written.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import ColdStart, Model
from workflow_scripts.core.checkpoint import publish
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.formats import has_worked_answers, sft_texts
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_task_arguments,
    add_template_argument,
    arguments,
    run,
    say,
    task_files,
)
from workflow_scripts.core.sources import hub_hint, one_line
from workflow_scripts.core.templates import render

TOKENIZER_TEXTS = 20_000  # texts that the tokenizer is trained on


def train_tokenizer(texts: Iterable[str], vocabulary: int):
    """Return a fast tokenizer over all 256 bytes, with merges for frequent sequences in `texts`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def make_model(scratch: dict[str, Any], tokenizer, seed: int):
    """Return a LlamaForCausalLM with random weights and the tokenizer's vocabulary."""
    import torch

    from workflow_scripts.core.pretrained import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(tokenizer),
        hidden_size=scratch["width"],
        intermediate_size=scratch["mlp_width"],
        num_hidden_layers=scratch["layers"],
        num_attention_heads=scratch["heads"],
        num_key_value_heads=scratch["heads"],
        max_position_embeddings=scratch["context"],
        initializer_range=scratch["init_std"],
        tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return AutoModelForCausalLM.from_config(config)


def cold_start_texts(
    task: str,
    task_settings: dict[str, Any],
    files: dict[str, str],
    cold_start: dict[str, Any],
    seed: int,
    template: str,
) -> Iterator[str]:
    """Yield what the cold start will train on, as text."""
    if cold_start["file"] and not has_worked_answers(cold_start):
        yield from sft_texts(cold_start, template)
        return

    conversation = tasks.load(task, "Conversation", task_settings, files)
    for example in tasks.load(task, "ColdStart", task_settings, files).examples(cold_start, seed):
        if example.get("fault"):
            continue
        prompt = {"id": "", "question": example["question"], "reference": None, "level": ""}
        version = "auto" if example["trigger"] == "auto" else "trigger"
        request = conversation.requests(prompt, version)[example["trigger"]]
        yield render(template, request) + "".join(text for text, _ in example["pieces"])


def existing_model(path: str, revision: str | None) -> Path:
    """Return the folder of a local model, or of one on the hub, which is downloaded once."""
    if Path(path).is_dir():
        return Path(path).resolve()

    if path.count("/") > 1 or path.startswith((".", "/", "~")):
        raise BadInput(f"model.path: {path} is neither a folder here nor a name on the hub (owner/name)")

    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, revision=revision)).resolve()
    except (OSError, ValueError) as error:
        raise BadInput(f"model.path: {path} cannot be loaded ({one_line(error)}); {hub_hint('model')}") from None


def main() -> None:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    parser.add_argument("--settings", required=True, help=settings_help("model"))
    parser.add_argument("--cold-start", help=settings_help("cold_start"))
    add_template_argument(parser)
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--output", required=True, help="checkpoint.json to write; the model goes beside it")
    args = parser.parse_args()

    settings = Model.model_validate_json(args.settings).model_dump(mode="json")
    fields = {"round": None, "inputs": {}, "settings": settings | {"seed": args.seed}}

    if settings["path"]:
        source = existing_model(settings["path"], settings["revision"])
        if not Path(settings["path"]).is_dir():
            fields["commits"] = {settings["path"]: source.name}  # the hub's cache names its folders after commits
        publish(args.output, lambda folder: folder.symlink_to(source), fields)
        return

    cold_start = ColdStart.model_validate_json(args.cold_start).model_dump(mode="json")
    texts = cold_start_texts(args.task, args.task_settings, task_files(args), cold_start, args.seed, args.template)
    tokenizer = train_tokenizer(itertools.islice(texts, TOKENIZER_TEXTS), settings["scratch"]["vocabulary"])
    model = make_model(settings["scratch"], tokenizer, args.seed)
    say(f"a Llama of {sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    publish(args.output, save, fields)


if __name__ == "__main__":
    run(main)
