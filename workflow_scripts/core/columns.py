"""The meanings of the columns of a file with training data, by the format of the file (core/formats.py)."""

from typing import Any

from workflow_scripts.core.errors import BadInput

Record = dict[str, Any]

PAIRS = (
    ("prompt", "response"),
    ("prompt", "completion"),
    ("question", "response"),
    ("instruction", "output"),
    ("input", "output"),
)
FORMS = {
    "sft": f"`messages`; {'; '.join(' and '.join(pair) for pair in PAIRS)}",
    "rewarded": "`uid` (or `qid` and `sample_id`), `prompt_pretokenized`, a response and a reward",
    "preference": "`chosen` and `rejected` (or `reject`), with or without `prompt`",
    "task": "training rows of a run, or of the original system of the task",
}


def find_columns(source: Record, present: set[str]) -> dict[str, str]:
    """Return {meaning: column} for a format.

    Raise BadInput if a column is missing, with the columns that are there and the formats that are known.
    """
    columns, missing = _columns(source, present)
    if not missing:
        return columns

    others = [name for name in ("sft", "rewarded", "preference") if name != source["format"]]
    fitting = [name for name in others if not _columns({"format": name}, present)[1]]
    hint = f" They fit the format {fitting[0]}." if fitting else ""
    forms = ". ".join(f"{name}: {form}" for name, form in FORMS.items())
    raise BadInput(
        f"{source['file']}: format {source['format']} needs {missing}; the keys of its first record are "
        f"{', '.join(map(str, sorted(present))) or 'none'}.{hint} The formats are – {forms}"
    )


def _columns(source: Record, present: set[str]) -> tuple[dict[str, str], str]:
    """Return {meaning: column} for a format, and what is missing ("" if nothing is)."""
    columns: dict[str, str] = {}

    match source["format"]:
        case "sft":
            pair = next((pair for pair in PAIRS if present.issuperset(pair)), None)
            if "messages" in present:
                columns = {"messages": "messages"}
            elif pair:
                columns = {"prompt": pair[0], "answer": pair[1]}
            else:
                return {}, f"`messages` or one of: {'; '.join(' and '.join(pair) for pair in PAIRS)}"
        case "rewarded":
            columns = {
                "prompt": source.get("prompt_key") or "prompt_pretokenized",
                "reward": source.get("reward_key", "accuracy"),
                "answer": source.get("response_key", "unprocessed_response"),
            }
        case "preference":
            rejected = source.get("rejected_key", "rejected")
            if rejected == "rejected" and rejected not in present and "reject" in present:
                rejected = "reject"  # as in SynFed's files
            columns = {"chosen": source.get("chosen_key", "chosen"), "rejected": rejected}
            prompt = source.get("prompt_key") or ("prompt" if "prompt" in present else None)
            if prompt:
                columns["prompt"] = prompt

    if missing := [column for column in columns.values() if column not in present]:
        return columns, ", ".join(map(repr, missing))
    if source["format"] == "rewarded" and "uid" not in present and not present.issuperset(("qid", "sample_id")):
        return columns, "`uid`, or `qid` and `sample_id`"

    return columns, ""
