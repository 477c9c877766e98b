"""Compare an utterance with the texts of all items, by TF-IDF, a local encoder, or an embeddings endpoint."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running import plugins
from workflow_scripts.core.running.ledger import Ledger

if TYPE_CHECKING:
    from workflow_scripts.tasks.recommend.settings import Grounding

EMBEDDINGS = "embedding_requests"  # the ledger of an embeddings endpoint, which all stages of a run share


class Embedder(Protocol):
    """Interface of the objects that compare utterances with items."""

    def prepare(self, texts: Sequence[str]) -> None:
        """Get ready for some texts at once, where that is faster than one by one."""
        ...

    def similarities(self, text: str) -> np.ndarray:
        """Return the cosine similarity of a text to each item: [items]."""
        ...

    def close(self) -> None:
        """Release what the embedder holds."""
        ...


class Tfidf:
    """TF-IDF of the letters within words, 2 to 4 at a time. It needs no model, and tolerates typing errors."""

    def __init__(self, texts: list[str]):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
        self.vectors = self.vectorizer.fit_transform(texts)

    def prepare(self, texts: Sequence[str]) -> None:
        """Do nothing: texts are compared in an instant."""

    def similarities(self, text: str) -> np.ndarray:
        vector: Any = self.vectorizer.transform([text])
        return (self.vectors @ vector.T).toarray()[:, 0]

    def close(self) -> None:
        """Release nothing."""


class Encoder:
    """An encoder in a folder or on the Hugging Face hub: the mean of its last hidden states, at unit length."""

    def __init__(self, name: str, vectors: np.ndarray | None = None):
        from workflow_scripts.core.pretrained import AutoModel, AutoTokenizer

        self.name = name
        self.tokenizer = AutoTokenizer.from_pretrained(name)
        self.model = AutoModel.from_pretrained(name).eval()
        self.vectors = vectors

    def encode(self, texts: list[str]) -> np.ndarray:
        """Return the vectors of some texts: [texts, width], float32."""
        import torch

        longest = min(512, self.tokenizer.model_max_length)
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            hidden = self.model(**inputs).last_hidden_state

        mask = inputs["attention_mask"][:, :, None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).float().numpy()

    def prepare(self, texts: Sequence[str]) -> None:
        """Do nothing: a text is encoded on its own, so that its vector does not depend on the others."""

    def similarities(self, text: str) -> np.ndarray:
        return compare(self.vectors, self.encode([text])[0], self.name)

    def close(self) -> None:
        """Release nothing."""


class RemoteEncoder:
    """A model behind an OpenAI-compatible embeddings endpoint; vectors are brought to unit length."""

    def __init__(self, endpoint: dict[str, Any], ledger: Ledger, purpose: str, vectors: np.ndarray | None = None):
        """
        Args:
            endpoint: the config section of the endpoint, as JSON.
            ledger: where vectors are kept once they are paid for.
            purpose: what the requests are for, in messages and in the account.
            vectors: those of the items, at unit length.
        """
        self.name = endpoint["model"]
        self.client = plugins.load("engines", "openai").Embeddings(endpoint, ledger, purpose)
        self.vectors = vectors

    def encode(self, texts: list[str]) -> np.ndarray:
        """Return the vectors of some texts: [texts, width], float32."""
        return unit_length(self.client.embed(texts), texts, self.name)

    def prepare(self, texts: Sequence[str]) -> None:
        if texts:
            self.client.embed(list(texts))

    def similarities(self, text: str) -> np.ndarray:
        return compare(self.vectors, self.encode([text])[0], self.name)

    def close(self) -> None:
        """End the client's event loop."""
        self.client.close()


def make_encoder(
    grounding: "Grounding", ledger: Ledger | None = None, purpose: str = "", vectors: np.ndarray | None = None
) -> Encoder | RemoteEncoder:
    """Return the encoder that `recommend.grounding` describes. One behind an endpoint needs a ledger."""
    if grounding.openai is None:
        assert grounding.embedder is not None
        return Encoder(grounding.embedder, vectors)

    assert ledger is not None
    return RemoteEncoder(grounding.openai.model_dump(mode="json"), ledger, purpose, vectors)


def unit_length(vectors: np.ndarray, names: Sequence[str], source: str) -> np.ndarray:
    """Return vectors at unit length, float32. Raise BadInput if one is zero or not finite, by its name."""
    values = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(values, axis=1)

    bad = ~(np.isfinite(lengths) & (lengths > 0))
    if bad.any():
        name = names[int(np.argmax(bad))]
        raise BadInput(
            f"{source}: the vector of {name!r:.80} is zero or not finite, so nothing can be compared with it"
        )

    return (values / lengths[:, None]).astype(np.float32)


def compare(vectors: np.ndarray | None, vector: np.ndarray, name: str) -> np.ndarray:
    """Return the cosine similarity of an utterance's vector to each item. Raise BadInput if the widths differ."""
    assert vectors is not None
    if vectors.shape[1] != len(vector):
        raise BadInput(
            f"recommend.grounding: the items' vectors have {vectors.shape[1]} numbers, but {name} gives an utterance "
            f"{len(vector)}; items and utterances must be embedded by the same model"
        )
    return vectors @ vector
