"""The two kinds of bad data: input that stops a stage, and single records that it leaves out."""


class BadInput(Exception):
    """Raised for input that a person has to correct.

    The message names the file, the record or the key, what was found there and what would be right.
    """


class Reject(Exception):
    """Raised for a record that cannot be used. The stage leaves the record out and lists it with this reason."""


def validation_message(error) -> str:
    """Return the faults of a `pydantic.ValidationError` in one line."""
    faults = []

    for fault in error.errors():
        path = ".".join(map(str, fault["loc"])) or "the whole value"
        faults.append(f"{path}: {fault['msg']}")

    return "; ".join(faults)
