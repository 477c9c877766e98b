"""Delete, while a run goes on, what its config does not ask to keep (`workflow_scripts.forget` decides what)."""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snakemake.logging import logger

from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import Config
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running.soundness import evicted
from workflow_scripts.forget import Forgetting, forget, metric_of

AFTER = ("train", "evaluate", "construct_data")  # rules after which something may not be needed any more


class Retention:
    """What the driver of a run deletes."""

    def __init__(self, cfg: Config, run: Run):
        self.keep = cfg.keep
        self.forgetting = Forgetting(run.folder, cfg.keep, metric_of(cfg.task))

        self.pending: set[Any] = set()
        self.lock = threading.Lock()  # jobs end in threads of their own

    def watch(self, jobs: Iterable[Any]) -> None:
        """Take note of the jobs that a run has to do."""
        self.pending = set(jobs)

    def after(self, job: Any) -> None:
        """Delete what no pending job needs, after a job that may have been the last to need it."""
        with self.lock:
            self.pending.discard(job)
            if job.rule.name in AFTER:
                self.now()

    def now(self) -> None:
        """Delete what the pending jobs do not need."""
        if self.keep.everything:
            return

        needed = {str(path) for job in self.pending for path in job.input}
        rounds = [str(job.wildcards.get("n", "")) for job in self.pending]
        busy = {int(n) for n in rounds if n.isdigit()}
        try:
            forget(self.forgetting, needed, busy, logger.info)
        except (BadInput, OSError) as error:  # what was computed is safe, so the run goes on
            logger.error(f"keep: nothing was deleted: {error}")

    def missing(self, jobs: Iterable[Any]) -> list[str]:
        """Return a sentence for each evicted checkpoint that pending jobs need."""
        jobs = list(jobs)
        made = {str(path) for job in jobs for path in job.output}
        sentences = []

        for path in sorted({str(path) for job in jobs for path in job.input} - made):
            if evicted(Path(path)):
                readers = ", ".join(sorted({job.rule.name for job in jobs if path in map(str, job.input)}))
                way_back = self._way_back(Path(path))
                sentences.append(f"{readers}: the weights beside {path} were deleted (`keep`). {way_back}")
        return sentences

    def _way_back(self, checkpoint: Path) -> str:
        """Return how an evicted checkpoint is made again."""
        try:
            seconds = self.forgetting.seconds_again(checkpoint)
        except BadInput as fault:
            return f"They cannot be made again as they were: {fault}"
        files = " ".join(self._chain(checkpoint))
        return f"To make them again, in about {seconds:.0f} s of training, type `rm {files}` and the same command"

    def _chain(self, checkpoint: Path) -> list[str]:
        """Return an evicted checkpoint and those that it starts from, as far as they are evicted too."""
        chain = [str(checkpoint)]
        for name in self.forgetting.inputs(checkpoint):
            if evicted(Path(name)):
                chain += self._chain(Path(name))
        return sorted(set(chain))
