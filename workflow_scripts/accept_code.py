"""Keep finished results although the code behind them changed, for example after an upgrade of Roundhouse.

    python -m workflow_scripts.accept_code round3_checkpoint
    python -m workflow_scripts.accept_code round2_checkpoint --configfile recipes/math.yaml

Give the target and options of your `snakemake` command (the profile `local` is the default). The results that this
command would make again only because code changed count as made by the present code from now on. What was accepted is
recorded in `accepted_code.json` in the run's folder, and `verify` shows it. If the code changes again, that change is
asked about again.
"""

import os
import subprocess
import sys

from workflow_scripts.workflow.brake import ACCEPT_VARIABLE


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: python -m workflow_scripts.accept_code TARGET [snakemake options]\n\n{__doc__}")
        return 0

    profile = [] if "--profile" in arguments else ["--profile", "local"]
    command = [sys.executable, "-m", "snakemake", *arguments, *profile, "--dry-run", "--quiet", "all"]
    return subprocess.run(command, env=os.environ | {ACCEPT_VARIABLE: "1"}).returncode


if __name__ == "__main__":
    sys.exit(main())
