"""Items, and which of them an utterance speaks of: a ranking by titles that stand in it and by likeness.

A catalogue file holds {items: [{title, text, attributes}], embedder, vectors}: `text` is what an item is compared by,
`attributes` {name: value} what a scripted seeker may be asked for, `vectors` a float32 array [items, width] of unit
length (None where the embedder is fitted to the texts in an instant: tfidf).
"""

import re
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import normalise
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.records import read_records

DEPTH = 50  # items that a ranking has at most
NUMBERED = re.compile(r"(?:^|\s)(\d{1,2})\. (?=\S)")


def read_items(file: str) -> list[dict]:
    """The items of a file: `title`, optionally `text`; every other column is an attribute. BadInput if a title lacks or
    comes twice."""
    items, seen = [], set()
    for number, record in enumerate(read_records(file), 1):
        title = record.get("title")
        if not isinstance(title, str) or not title.strip():
            raise BadInput(f"{file}, record {number}: title should be text, found {title!r:.60}")
        if not isinstance(record.get("text") or "", str):
            raise BadInput(f"{file}, record {number}: text should be text, found {record['text']!r:.60}")
        items.append(item(title, record.get("text"), {k: v for k, v in record.items() if k not in ("title", "text")}))
        if items[-1]["title"] in seen:
            raise BadInput(f"{file}, record {number}: the title {title!r} occurs before; titles must be unique")
        seen.add(items[-1]["title"])
    return items


def item(title: str, text: str | None = None, attributes: dict | None = None) -> dict:
    values = {name: str(value) for name, value in (attributes or {}).items() if value not in (None, "")}
    return {"title": normalise(title), "text": text or normalise(title), "attributes": values}


# ---------------------------------------------------------------- embedders


class Tfidf:
    """Letters in words, 2 to 4 at a time, weighed by how rare they are: no model, and typing errors do little harm."""

    def __init__(self, texts: list[str]):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
        self.vectors = self.vectorizer.fit_transform(texts)

    def likeness(self, text: str) -> np.ndarray:
        """Cosine [items] of a text to each item."""
        return (self.vectors @ self.vectorizer.transform([text]).T).toarray()[:, 0]


class Encoder:
    """An encoder of the Hugging Face hub, or in a folder: the mean of its last hidden states, at unit length."""

    def __init__(self, name: str, vectors: np.ndarray | None = None):
        from workflow_scripts.core.pretrained import AutoModel, AutoTokenizer

        self.tokenizer, self.model = AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name).eval()
        self.vectors = vectors

    def encode(self, texts: list[str]) -> np.ndarray:
        """[texts, width] in float32."""
        import torch

        longest = min(512, self.tokenizer.model_max_length)
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            hidden = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).float().numpy()

    def likeness(self, text: str) -> np.ndarray:
        return self.vectors @ self.encode([text])[0]


# ---------------------------------------------------------------- grounding


class Catalogue:
    """`settings` is the config's `recommend.grounding`."""

    def __init__(self, path: str | Path, settings: dict):
        found = read_pickle(path)
        if found["embedder"] != settings["embedder"]:
            raise BadInput(
                f"{path}: made for the embedder {found['embedder']!r}, not for {settings['embedder']!r}; make it again "
                "with workflow_scripts.catalogue"
            )
        self.path, self.items, self.vectors, self.settings = path, found["items"], found["vectors"], settings
        self.places = {one["title"]: number for number, one in enumerate(self.items)}
        self.folded = [one["title"].casefold() for one in self.items]
        self.named, self.ranking = lru_cache(10_000)(self.named), lru_cache(10_000)(self.ranking)  # texts come again

    @cached_property
    def embedder(self):
        if self.settings["embedder"] == "tfidf":
            return Tfidf([one["text"] for one in self.items])
        return Encoder(self.settings["embedder"], self.vectors)

    def place(self, title: str) -> int:
        """An item's number; BadInput if there is none of this title."""
        if normalise(title) not in self.places:
            raise BadInput(f"{self.path}: a prompt's target {title!r} is none of its {len(self.items)} items")
        return self.places[normalise(title)]

    def named(self, text: str) -> list[int]:
        """Items whose titles stand in the text, in its order; a title within a longer one does not count."""
        text = normalise(text).casefold()
        near = [number for number, title in enumerate(self.folded) if title in text]
        found = [(place, -len(self.folded[n]), n) for n in near for place in _places(self.folded[n], text)]
        items, end = {}, 0
        for start, length, number in sorted(found):
            if start >= end:
                items[number], end = None, start - length
        return list(items)

    def ranking(self, text: str) -> list[int]:
        """At most DEPTH items that the utterance means, the likeliest first; of equals, the first of the catalogue."""
        items = list(self.named(text)) if self.settings["literal"] else []  # a copy: what is cached stays
        if self.settings["embedder"]:
            likeness = self.embedder.likeness(text)
            known = set(items)
            items += [
                number for number in np.argsort(-likeness, kind="stable")[: 2 * DEPTH].tolist() if number not in known
            ]
        return items[:DEPTH]

    def recommends(self, text: str) -> bool:
        """Whether an utterance recommends: it has a numbered list, or a title in it. (The original asked a model.)"""
        return "1" in NUMBERED.findall(text) or bool(self.named(text))


def _places(title: str, text: str) -> list[int]:
    """Where a title stands in a text, with no word going on at either end."""
    return [found.start() for found in re.finditer(rf"(?<!\w){re.escape(title)}(?!\w)", text)]


def numbered(text: str) -> list[int]:
    """The numbers of an utterance's list, as they stand there."""
    return [int(number) for number in NUMBERED.findall(text)]


def rewritten(catalogue: Catalogue, text: str, targets: list[str], length: int) -> str:
    """A list written anew: targets that were hit first, then the other items in the ranking's order, none twice, filled
    up to `length`; what stands before and after the list is kept."""
    ranking = catalogue.ranking(text)
    wanted = {catalogue.place(title) for title in targets}
    hits = [number for number in ranking[: catalogue.settings["top_k"]] if number in wanted]
    order = (hits + [number for number in ranking if number not in hits])[:length]
    lines = [f"{place}. {catalogue.items[number]['title']}" for place, number in enumerate(order, 1)]
    places = list(NUMBERED.finditer(text))
    if not places:
        return f"{text}\n" + "\n".join(lines)
    before, rest = text[: places[0].start(1)], text[places[-1].start(1) :]
    after = rest[rest.find("\n") :] if "\n" in rest else ""
    return before + "\n".join(lines) + after
