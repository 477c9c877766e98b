"""Add to answers what their tokens are coloured by on the page of a run: probabilities, ratios, the advantage.

The ratio of a token is its probability in the log-probs that training starts from, divided by the one that the engine
gave when it sampled. It is 1 where both agree. Only rows that were trained on have stored log-probs and an advantage.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.overview.page.answers import MOST_CHARACTERS, graded_shards
from workflow_scripts.overview.page.facts import Row

NONE = "-"  # a token that the policy did not sample, or of which nothing is known
STEPS = 9  # classes of a colour: probabilities from 0 to 1, ratios from 1/WIDEST to WIDEST
WIDEST = 1.5


def add_tokens(folder: Path, questions: list[Row]) -> None:
    """Add the lengths and classes of tokens to the answers to a run's questions, where they are known.

    An answer gets `tl` (lengths in characters), `tp` (classes of probability), `tr` (classes of the ratio) and `ad`
    (its advantage). Answers whose tokens do not spell their text get nothing.
    """
    for number, paths in graded_shards(folder, "results").items():
        wanted = {answer["u"]: answer for question in questions for answer in question["rounds"].get(number, ())}
        tokenizer = tokenizer_of(folder, number - 1)
        if not wanted or tokenizer is None:
            continue

        scored = stored_logps(folder, number, wanted)
        advantages = advantages_of(folder, number, wanted)
        for record in (record for path in paths for record in read_records(path)):
            uid = record["uid"]
            if uid in wanted and "tokens" in record:
                wanted[uid].update(coloured(record, tokenizer, scored.get(uid)))
                if uid in advantages:
                    wanted[uid]["ad"] = round(advantages[uid], 3)


def coloured(record: Row, tokenizer: Any, scored: Sequence[float] | None) -> Row:
    """Return the lengths and classes of an answer's tokens; {} if the tokens do not spell its text."""
    lengths = [len(piece) for piece in pieces_of(tokenizer, record["tokens"])]
    if sum(lengths) != len(record["answer"]):
        return {}

    sampled = record.get("sampled_logps") or []
    engine = spread(record["mask"], sampled)
    training = spread(record["mask"], scored if scored is not None else [])
    known = engine if sampled else training
    ratios = [None if a is None or b is None else a - b for a, b in zip(training, engine)]

    shown = 0
    while shown < len(lengths) and sum(lengths[: shown + 1]) <= MOST_CHARACTERS:
        shown += 1
    result: Row = {"tl": lengths[:shown], "tp": "".join(map(class_of_probability, known[:shown]))}
    if any(ratio is not None for ratio in ratios):
        result["tr"] = "".join(map(class_of_ratio, ratios[:shown]))
    return result


def pieces_of(tokenizer: Any, tokens: Sequence[int]) -> Iterator[str]:
    """Yield the text that each token adds. A token that ends within a character adds nothing; the next one adds it."""
    start = end = 0  # tokens[start:end] are decoded with the next token, since its text may depend on them

    for number in range(1, len(tokens) + 1):
        before = tokenizer.decode(tokens[start:end])
        after = tokenizer.decode(tokens[start:number])
        if after.endswith("\ufffd") and number < len(tokens):
            yield ""
            continue
        yield after[len(before) :]
        start = end if len(after) > len(before) else start
        end = number


def spread(mask: Sequence[int], values: Sequence[float]) -> list[float | None]:
    """Return one value per token, from the values of the sampled tokens; None for all others."""
    if len(values) != sum(mask):
        return [None] * len(mask)
    rest = iter(values)
    return [float(next(rest)) if sampled else None for sampled in mask]


def class_of_probability(logp: float | None) -> str:
    """Return the class of a token's probability, from 0 to STEPS - 1."""
    return NONE if logp is None else str(min(STEPS - 1, int(math.exp(min(logp, 0.0)) * STEPS)))


def class_of_ratio(logarithm: float | None) -> str:
    """Return the class of a ratio, by its logarithm; the middle one holds ratios near 1."""
    if logarithm is None:
        return NONE
    limit = math.log(WIDEST)
    share = (max(-limit, min(limit, logarithm)) + limit) / (2 * limit)
    return str(min(STEPS - 1, int(share * STEPS)))


# ---------------------------------------------------------------- files of the run


def tokenizer_of(folder: Path, number: int) -> Any:
    """Return the tokenizer of a checkpoint, loaded without transformers; None if it has none in one file."""
    from tokenizers import Tokenizer

    for name in (f"r{number}", "init"):
        file = folder / f"checkpoints/{name}/model/tokenizer.json"
        if file.is_file():
            return Tokenizer.from_file(str(file))
    return None


def stored_logps(folder: Path, number: int, wanted: Row) -> dict[str, Any]:
    """Return the stored log-probs of some answers of a round, under the policy that training starts from."""
    logps = {}
    for path in folder.glob(f"data/offline_*_r{number}_*_logp"):
        if not path.name.endswith("_ref_logp"):
            for shard in sorted(path.glob("*.pkl")):
                logps |= {uid: values for uid, values in read_pickle(shard).items() if uid in wanted}
    return logps


def advantages_of(folder: Path, number: int, wanted: Row) -> dict[str, float]:
    """Return the advantages of the answers that a round trains on."""
    advantages = {}
    for path in folder.glob(f"data/offline_*_r{number}_*.pkl"):
        for row in read_pickle(path):
            if row["uid"] in wanted and row.get("advantage") is not None:
                advantages[row["uid"]] = float(row["advantage"])
    return advantages
