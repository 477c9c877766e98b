"""Copy a checkpoint's model for publication: its weights rounded to bf16, in files of at most 5 GB."""

import shutil
from pathlib import Path

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json

MOST_PER_FILE = "5GB"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")  # all other files of the folder are copied as they are
INDEX = ".index.json"


def publish_weights(source: Path, folder: Path) -> int:
    """Write the model of the folder `source` into a new folder, and return its number of parameters.

    Raise BadInput if the model has no safetensors files.
    """
    from huggingface_hub import save_torch_state_dict

    tensors = rounded(source)
    folder.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.endswith((*WEIGHTS, INDEX)) and path.name.lower() != "readme.md":
            shutil.copyfile(path, folder / path.name)

    config = read_json(folder / "config.json")
    name = "torch_dtype" if "torch_dtype" in config else "dtype"
    write_json(folder / "config.json", config | {name: "bfloat16"})
    save_torch_state_dict(tensors, folder, max_shard_size=MOST_PER_FILE)
    return sum(tensor.numel() for tensor in tensors.values())


def rounded(source: Path) -> dict:
    """Return the tensors of a model by name, floating-point ones in bf16. One fp32 tensor at a time is in memory."""
    import torch
    from safetensors import safe_open

    files = sorted(source.glob("*.safetensors"))
    if not files:
        raise BadInput(f"{source}: there are no safetensors files; publish a round that was trained here")

    tensors = {}
    for file in files:
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():
                tensor = stored.get_tensor(name)
                tensors[name] = tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
    return tensors
