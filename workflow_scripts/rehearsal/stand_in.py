"""Make the stand-in of the recipe's model: a tiny random model of the same architecture, with the same tokenizer.

Its class and all switches of its config are the model's: tied embeddings, rope scaling, sliding windows, grouped
queries, norms of queries and keys, the context window. Only widths and the number of layers are small. The tokenizer is
the model's own if it can be had, else one of the same class with the same special tokens and chat template, trained on
the data.
"""

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Model
from workflow_scripts.core.checkpoint import publish
from workflow_scripts.core.files import read_json
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run, say
from workflow_scripts.rehearsal.families import SMALL_FILES, Description, description_of, own_files

LAYERS = 2
HEAD = 16  # width of an attention head
EXPERTS = 4
VOCABULARY = 4096  # tokens of a tokenizer that is trained here, beside its special tokens
TEXTS = 4000  # records that it is trained on
DROPPED = ("architectures", "torch_dtype", "dtype", "quantization_config", "auto_map", "_name_or_path")


# ---------------------------------------------------------------- the architecture


def small_config(values: dict[str, Any]) -> dict[str, Any]:
    """Return a model's config with small widths and few layers, and everything else as it is."""
    small = {name: value for name, value in values.items() if name not in DROPPED}

    heads = values.get("num_attention_heads") or 4
    group = heads // (values.get("num_key_value_heads") or heads)  # queries that share keys and values
    key_heads = 2 if group > 1 else 4
    small["num_attention_heads"] = key_heads * min(group, 4)
    small["num_key_value_heads"] = key_heads
    small["hidden_size"] = HEAD * small["num_attention_heads"]
    small["intermediate_size"] = 2 * small["hidden_size"]
    if "head_dim" in values:
        small["head_dim"] = HEAD

    kinds = values.get("layer_types")
    if kinds:  # a layer of each kind
        small["layer_types"] = list(dict.fromkeys(kinds)) if len(set(kinds)) > 1 else kinds[:LAYERS]
    small["num_hidden_layers"] = len(small["layer_types"]) if kinds else LAYERS
    if "max_window_layers" in values:
        small["max_window_layers"] = min(values["max_window_layers"] or 0, small["num_hidden_layers"])

    for name in ("num_experts", "num_local_experts", "n_routed_experts"):
        if values.get(name):
            small[name] = EXPERTS
    for name in ("num_experts_per_tok", "num_experts_per_token"):
        if values.get(name):
            small[name] = min(values[name], 2)
    if "moe_intermediate_size" in values:
        small["moe_intermediate_size"] = small["intermediate_size"]

    return small


def make_model(values: dict[str, Any], ends: list[int], tokenizer: Any, seed: int):
    """Return a random model of a config, whose answers end with the tokens `ends`."""
    import torch

    from workflow_scripts.core.pretrained import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    values = small_config(values) | {"initializer_range": 0.05}
    ends = ends or [tokenizer.eos_token_id]
    values |= {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id}
    values |= {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": ends[0] if len(ends) == 1 else ends}
    kind = values.pop("model_type")

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values))
    model.generation_config.eos_token_id = values["eos_token_id"]
    return model


# ---------------------------------------------------------------- the tokenizer


def texts_of(value: Any) -> Iterator[str]:
    """Yield all texts within a record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_of(item)


def make_tokenizer(description: Description, texts: Iterable[str]):
    """Return a byte-level BPE tokenizer trained on texts, with the special tokens of a family."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    about = description["tokenizer"]
    named = {name: about[name] for name in ("bos_token", "eos_token", "pad_token") if about.get(name)}
    special = list(dict.fromkeys([*named.values(), *about.get("further", ())]))

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY + len(special),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)

    if about["adds_bos"]:
        bos = about["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )

    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        model_max_length=description["config"]["max_position_embeddings"],
        additional_special_tokens=about.get("further", []),
        **named,
    )
    made.chat_template = description.get("chat_template")
    return made


def save_tokenizer(tokenizer: Any, description: Description, folder: Path) -> None:
    """Save a tokenizer under the class that the family's own tokenizer names."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(read_json(path) | {"tokenizer_class": description["tokenizer"]["class"]}, indent=1))


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the files of a model's tokenizer, byte by byte."""
    for pattern in SMALL_FILES:
        for file in source.glob(pattern):
            if not file.name.endswith(("config.json", ".index.json")) or file.name == "tokenizer_config.json":
                shutil.copy(file, folder)


# ---------------------------------------------------------------- the stage


def from_own_files(source: Path, seed: int):
    """Return (model, tokenizer) with the config and the tokenizer in a folder."""
    from workflow_scripts.core.pretrained import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    config = AutoConfig.from_pretrained(source).to_dict()
    generation = read_json(source / "generation_config.json") if (source / "generation_config.json").is_file() else {}

    ends = generation.get("eos_token_id", config.get("eos_token_id"))
    ends = list(ends) if isinstance(ends, list | tuple) else [ends] if ends is not None else []
    return make_model(config, ends, tokenizer, seed), tokenizer


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--settings", required=True, help=settings_help("model"))
    parser.add_argument("--texts", nargs="*", default=[], help="files of records that a tokenizer is trained on")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--output", required=True, help="checkpoint.json to write; the model goes beside it")
    args = parser.parse_args()

    settings = Model.model_validate_json(args.settings)
    path = settings.path or ""
    source = own_files(path, settings.revision)
    description: Description = {}

    if source:
        model, tokenizer = from_own_files(source, args.seed)
    else:
        description = description_of(path)
        records = itertools.chain.from_iterable(itertools.islice(read_records(file), TEXTS) for file in args.texts)
        tokenizer = make_tokenizer(description, (text for record in records for text in texts_of(record)))
        ends: Any = tokenizer.convert_tokens_to_ids(description["ends"])
        model = make_model(description["config"], ends, tokenizer, args.seed)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        if source:
            copy_tokenizer(source, folder)
        else:
            save_tokenizer(tokenizer, description, folder)

    origin = "files" if source else "description"
    fields = {"round": None, "inputs": {}, "settings": settings.model_dump(mode="json") | {"stand_in": origin}}
    publish(args.output, save, fields)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(f"a {type(model).__name__} of {parameters:,} random parameters in place of {path}, {len(tokenizer)} tokens")


if __name__ == "__main__":
    run(main)
