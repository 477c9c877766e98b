"""The loaders of transformers, imported in two thirds of the time.

Where scikit-learn and SciPy are installed, transformers imports them with its models, for assisted generation and for
losses of object detection. Nothing here uses either, and every job would wait seconds for them.
"""

from pathlib import Path
from typing import Any
from unittest.mock import patch

from workflow_scripts.core.files import read_json

with patch("transformers.utils.is_sklearn_available", bool), patch("transformers.utils.is_scipy_available", bool):
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: F401
    from transformers import AutoTokenizer as TokenizerLoader
    from transformers.modeling_utils import PreTrainedModel  # noqa: F401

PROBE = "two words\n  and a line"


class AutoTokenizer:
    """The tokenizer of a model."""

    @staticmethod
    def from_pretrained(path: str | Path) -> Any:
        """Return the tokenizer in a folder, or of a model on the hub.

        transformers 5 gives byte-level tokenizers that name the class LlamaTokenizer(Fast), such as DeepSeekMath's, the
        rules of SentencePiece: all white space is lost (huggingface/transformers issue 48206). Such a tokenizer is
        loaded as its own tokenizer.json describes it.
        """
        tokenizer = TokenizerLoader.from_pretrained(path)
        file = Path(path) / "tokenizer.json"

        if file.is_file() and tokenizer.decode(tokenizer.encode(PROBE, add_special_tokens=False)) != PROBE:
            if "ByteLevel" in str(read_json(file).get("decoder")):
                return PreTrainedTokenizerFast.from_pretrained(path)

        return tokenizer
