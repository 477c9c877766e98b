"""The loaders of transformers, imported in two thirds of the time.

Where scikit-learn and SciPy are installed, transformers imports them with its models, for assisted generation and for
losses of object detection. Nothing here uses either, and every job would wait seconds for them.
"""

from unittest.mock import patch

with patch("transformers.utils.is_sklearn_available", bool), patch("transformers.utils.is_scipy_available", bool):
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer  # noqa: F401
    from transformers.modeling_utils import PreTrainedModel  # noqa: F401
