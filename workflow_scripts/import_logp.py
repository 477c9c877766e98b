"""Take log-probs that exist for a round's rows, and score the rows that have none: one shard of them.

Stored log-probs are used only if their passport fits: the same model, tokenizer, rows, arithmetic and sampling
settings. Files with another passport, or with none, such as another system's, are named and left alone, and their rows
are scored. Rows are joined by uid.

    python -m workflow_scripts.import_logp --data runs/mine/data/offline_all_r1_mine.pkl --source rows.pkl \\
        --existing rows_logp --model runs/mine/checkpoints/r0/checkpoint.json --output /tmp/1_0.pkl
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from workflow_scripts.config.sections import Logp
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.running.cli import run, say
from workflow_scripts.core.running.manifest import manifest_of
from workflow_scripts.logp import parser_of, passport_of, publish, rows_of_shard, score_rows
from workflow_scripts.training import processes
from workflow_scripts.training.peaks import StageMemory


def log_prob_files(paths: list[str]) -> list[str]:
    """Return the files among these paths, and the .pkl files of the folders among them."""
    files = []

    for path in paths:
        if Path(path).is_dir():
            inside = sorted(str(file) for file in Path(path).glob("*.pkl"))
            if not inside:
                raise BadInput(f"{path}: there are no .pkl files in this folder")
            files += inside
        else:
            files.append(path)

    return files


def misfit(path: str, expected: dict[str, Any]) -> str:
    """Return why the log-probs of a file cannot be used, or "" if they can."""
    manifest = manifest_of(path)
    passport = read_json(manifest).get("passport") if manifest.exists() else None
    if not passport:
        return f"no passport (`passport` in {manifest})"

    different = [name for name, value in expected.items() if passport.get(name) != value]
    return f"computed for another {' and another '.join(different)}" if different else ""


def read_fitting(args: argparse.Namespace, expected: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the log-probs of the files whose passport fits, by uid, and the names of these files."""
    logps: dict[str, Any] = {}
    used = []

    for path in log_prob_files(args.existing):
        if reason := misfit(path, expected):
            say(f"{path}: not used, {reason}; its rows are scored")
            continue
        values = read_pickle(path)
        if not isinstance(values, dict):
            raise BadInput(f"{path}: should be a mapping from uids to log-probs, found {type(values).__name__}")
        logps |= values
        used.append(path)

    return logps, used


def has_right_length(row: dict[str, Any], values: Any) -> bool:
    """Return whether there is one log-prob for each sampled token of a row."""
    return hasattr(values, "__len__") and len(values) == sum(row["mask"])


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--source", required=True, help="the file that the rows came from, which passports name")
    parser.add_argument("--existing", required=True, nargs="+", help="log-prob files (.pkl), or folders of them")
    args = parser.parse_args()
    started = time.time()
    settings = Logp.model_validate_json(args.settings)
    torch.set_num_threads(settings.threads)

    rows = rows_of_shard(args)
    stored, used = read_fitting(args, passport_of(args, settings, args.source))
    known = [row for row in rows if row["uid"] in stored]
    taken = {row["uid"]: stored[row["uid"]] for row in known if has_right_length(row, stored[row["uid"]])}
    missing = [row for row in rows if row["uid"] not in taken]
    if len(taken) < len(known):
        say(f"{len(known) - len(taken)} rows have more or fewer log-probs than sampled tokens, which are not used")
    say(f"{len(taken)} of {len(rows)} rows have log-probs; {len(missing)} are scored")

    memory = StageMemory("logp")
    scored = score_rows(args, settings, missing, memory) if missing else []
    if processes.rank():
        return  # rank 0 writes

    values = taken | {row["uid"]: value for row, value in zip(missing, scored)}
    publish(args, settings, rows, [values[row["uid"]] for row in rows], used, started, memory, taken=len(taken))


if __name__ == "__main__":
    run(main)
