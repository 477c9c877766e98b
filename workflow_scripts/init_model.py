"""The model that round 0 starts from, as checkpoints/init: an existing one, linked, or a small Llama made here.

A model from scratch has the architecture of LlamaForCausalLM with random weights, and a byte-level BPE tokenizer
(digits stand alone, any text can be written) trained on the texts of the cold start.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

from workflow_scripts import tasks
from workflow_scripts.core import prompts
from workflow_scripts.core.checkpoint import publish
from workflow_scripts.core.cli import arguments, run, say
from workflow_scripts.core.config import settings_help
from workflow_scripts.core.formats import has_solutions, sft_texts
from workflow_scripts.core.prompts import TEMPLATES
from workflow_scripts.core.records import BadInput
from workflow_scripts.core.sections import ColdStart, Model

TOKENIZER_TEXTS = 20_000


def train_tokenizer(texts, vocabulary: int):
    """A fast tokenizer over all 256 bytes, with merges for what is frequent in `texts`."""
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


def make_model(scratch: dict, tokenizer, seed: int):
    """LlamaForCausalLM with random weights; the vocabulary is the tokenizer's."""
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


def cold_start_texts(task, cold_start: dict, seed: int, template: str) -> Iterator[str]:
    """What the cold start will train on, as text."""
    if cold_start["file"] and not has_solutions(cold_start["file"]):
        yield from sft_texts(cold_start["file"], template)
        return
    for example in task.worked_examples(cold_start, seed):
        asked = task.requests(example["question"], "auto" if example["trigger"] == "auto" else "trigger")
        yield prompts.render(template, asked[example["trigger"]]) + "".join(text for text, _ in example["pieces"])


def existing(path: str, revision: str | None) -> Path:
    """The folder of a local model, or of one on the hub, which is fetched once."""
    if Path(path).is_dir():
        return Path(path).resolve()
    from huggingface_hub import snapshot_download

    if path.count("/") > 1 or path.startswith((".", "/", "~")):
        raise BadInput(f"model.path: {path} is neither a folder here nor a name on the hub (owner/name)")
    return Path(snapshot_download(path, revision=revision)).resolve()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--settings", required=True, help=settings_help("model"))
    parser.add_argument("--cold-start", help="the config's `cold_start` section as JSON")
    parser.add_argument("--template", choices=(*TEMPLATES, "chat"), default="deepseek", help="prompt template")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--output", required=True, help="checkpoint.json to write; the model goes beside it")
    args = parser.parse_args()
    settings = Model.model_validate_json(args.settings).model_dump(mode="json")
    fields = {"round": None, "inputs": {}, "settings": settings | {"seed": args.seed}}

    if settings["path"]:
        publish(args.output, lambda folder: folder.symlink_to(existing(settings["path"], settings["revision"])), fields)
        return
    task = tasks.load(args.task)
    cold_start = ColdStart.model_validate_json(args.cold_start).model_dump(mode="json")
    texts = itertools.islice(cold_start_texts(task, cold_start, args.seed, args.template), TOKENIZER_TEXTS)
    tokenizer = train_tokenizer(texts, settings["scratch"]["vocabulary"])
    model = make_model(settings["scratch"], tokenizer, args.seed)
    say(f"a Llama of {sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    publish(args.output, save, fields)


if __name__ == "__main__":
    run(main)
