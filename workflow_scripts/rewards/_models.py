"""Loading the models that compute rewards."""

import torch

from workflow_scripts.core.pretrained import AutoTokenizer


def load_model(loader: str, path: str):
    """Return (model, tokenizer) of a folder or a name on the hub, on the GPU if there is one.

    `loader` is the name of a class of transformers, such as "AutoModel".
    """
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = getattr(transformers, loader).from_pretrained(path, dtype="auto").to(device).eval()
    return model, AutoTokenizer.from_pretrained(path)
