"""The Hugging Face hub: what is in its cache, whether it can be reached, and what its errors mean."""

import os
import urllib.error
import urllib.request
from pathlib import Path

SECONDS = 2.0  # to wait for the hub before a run
ADVICE = (
    "Run `hf download {name}` where the hub can be reached, and set HF_HOME to that cache (HF_HUB_OFFLINE=1 saves "
    "further attempts to reach the hub)"
)


def cache_folder() -> Path:
    """Return the folder of the hub's cache, by the same variables as huggingface_hub."""
    if folder := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(folder).expanduser()

    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", f"{cache}/huggingface")
    return Path(home).expanduser() / "hub"


def is_cached(name: str, kind: str = "model") -> bool:
    """Return whether the cache holds something of a model or a dataset ("model", "dataset")."""
    folder = cache_folder() / f"{kind}s--{name.replace('/', '--')}" / "snapshots"
    return folder.is_dir() and any(folder.glob("*/*"))


def fault(key: str, name: str, kind: str = "model") -> str | None:
    """Return why a stage will not get a model or a dataset of the hub, as a sentence, or None if it may.

    Args:
        key: the config key that names it.
        name: its name on the hub.
        kind: "model" or "dataset".
    """
    if is_cached(name, kind):
        return None

    missing = f"{key}: {name} is not in the hub's cache ({cache_folder()})"
    advice = ADVICE.format(name=name if kind == "model" else f"--repo-type dataset {name}")

    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return f"{missing}, and HF_HUB_OFFLINE forbids to download it. {advice}"
    if (endpoint := _unreachable_endpoint()) is not None:
        return f"{missing}, and {endpoint} cannot be reached from here. {advice}"

    return None


def _unreachable_endpoint() -> str | None:
    """Return the hub's address if nothing answers there."""
    try:
        from huggingface_hub.constants import ENDPOINT
    except ImportError:  # the Python that runs Snakemake may lack it; then the stage finds out
        return None

    request = urllib.request.Request(ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=SECONDS).close()
    except urllib.error.HTTPError:  # an answer
        return None
    except (OSError, ValueError):
        return ENDPOINT

    return None


def explain(error: BaseException) -> str | None:
    """Return what an error of huggingface_hub means, in a sentence; None for other errors."""
    kinds = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("huggingface_hub")}
    if not kinds:
        return None

    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled"}:
        return (
            f"the Hugging Face hub cannot be reached from here, and what is wanted is not in its cache "
            f"({cache_folder()}). {ADVICE.format(name='NAME')}. The hub's client says: {first_line}"
        )
    if "GatedRepoError" in kinds:
        return (
            "the Hugging Face hub gives this only to accounts that accepted its terms: accept them on its page, and "
            f"set HF_TOKEN (or type `hf auth login`). The hub's client says: {first_line}"
        )
    if kinds & {"RepositoryNotFoundError", "RevisionNotFoundError", "EntryNotFoundError"}:
        return (
            "the Hugging Face hub has nothing of this name, or shows it to its members only (HF_TOKEN, or "
            f"`hf auth login`). The hub's client says: {first_line}"
        )

    return f"the Hugging Face hub: {first_line}"
