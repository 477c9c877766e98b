"""Keys and passwords: values that must not appear in a message, a log or a ledger."""

import os
import re

SECRET_NAME = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD)$")  # of environment variables, such as HF_TOKEN
SHORTEST = 8  # characters; a shorter value would also be found in text that has nothing to do with it

_known: dict[str, str] = {}  # the name of a variable by its value


def remember(variable: str) -> None:
    """Treat the value of an environment variable as a secret, whatever the name of the variable is."""
    _known[os.environ[variable]] = variable


def hide(text: str) -> str:
    """Return a text with each secret of the environment replaced by the name of its variable.

    Endpoints repeat keys in their error messages, so texts from outside are hidden before they are kept.
    """
    secrets = {value: name for name, value in os.environ.items() if SECRET_NAME.search(name)} | _known

    for value in sorted(secrets, key=len, reverse=True):
        if len(value) >= SHORTEST and value in text:
            text = text.replace(value, f"[{secrets[value]}]")
    return text
