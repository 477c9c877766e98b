"""Protect each attempt of a job: finished outputs outlive a failure, and hopeless jobs are not tried again.

Snakemake deletes the outputs of a job before the job starts, and again after it failed, whatever the reason was. So
before each attempt, the finished outputs get a second name beside the first (a hard link, which takes no space), and
`state/kept/` notes Snakemake's records of them. If the attempt fails, the outputs and the records come back as they
were; a changed parameter is pending as before. If the driver was killed meanwhile, the next start brings them back.
"""

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.persistence import MetadataRecord
from snakemake.persistence.file import FilePersistence

from workflow_scripts.config.layout import Run
from workflow_scripts.core.checkpoint import remove
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.identity import digest
from workflow_scripts.core.running import slurm
from workflow_scripts.core.running.soundness import EVICTED
from workflow_scripts.core.running.status import HOPELESS, read_status
from workflow_scripts.workflow import driver, survey
from workflow_scripts.workflow.retention import Retention


def kept_name(output: str) -> Path:
    """Return the second name of an output."""
    path = Path(output)
    return path.with_name(f".{path.name}.kept")


def is_locked(run: str, folder: str) -> bool:
    """Return whether another Snakemake works below a folder of a run, or did when it was killed on another machine."""
    state = driver.state(run)
    if state != "unknown":
        return state == "working"
    for lock in Path(".snakemake/locks").glob("*"):
        if lock.is_file() and f"{folder}/" in lock.read_text():
            return True
    return False


class Attempts:
    """The attempts of a run's jobs, as the driver sees them."""

    def __init__(self, run: Run):
        self.run = run
        self.folder = Path(run.folder) / "state/kept"

    def before_execution(self, workflow: Any) -> None:
        """Arrange that this process becomes the run's only driver, and clears up after a killed one, before it plans.

        A dry run does not: it may look at a run that another driver makes.
        """
        execute = workflow.execute

        def claim_and_execute(executor_plugin: Any, *arguments: Any, **options: Any) -> Any:
            if not executor_plugin.common_settings.dryrun_exec:
                try:
                    driver.claim(self.run.folder)
                except BadInput as error:
                    raise WorkflowError(str(error)) from None
                self.restore_left()
            return execute(executor_plugin, *arguments, **options)

        workflow.execute = claim_and_execute

    def watch(self, workflow: Any, retention: Retention) -> None:
        """Arrange that outputs are kept and brought back, and that old rounds are deleted as the config asks.

        Call it before the first job starts.
        """
        self.retention = retention
        retention.watch(workflow.dag.needrun_jobs())
        executors = {id(executor): executor for executor in map(workflow.scheduler.get_executor, workflow.dag.jobs)}
        for executor in executors.values():
            self._watch(executor, workflow.persistence)

    def _watch(self, executor: Any, persistence: Any) -> None:
        run_jobs, succeeded, failed = executor.run_jobs, executor.handle_job_success, executor.handle_job_error

        def before(jobs: list[Any]) -> None:
            for job in _single_jobs(jobs):
                self.keep(job, persistence)
                for log in job.log:  # a log is of this attempt only
                    Path(log).unlink(missing_ok=True)
            run_jobs(jobs)

        def after_success(job: Any) -> None:
            for single in _single_jobs([job]):
                self.drop(self._note(single.output))
            succeeded(job)
            for single in _single_jobs([job]):
                self.retention.after(single)

        def after_failure(job: Any) -> None:
            for single in _single_jobs([job]):
                self.restore(self._note(single.output), persistence)
            if not job.is_group() and job.restart_times > job.attempt - 1 and is_hopeless(job):
                logger.error(f"{job.name} is not tried again: its input, its config or its packages have to be mended.")
                job._attempt = job.restart_times + 1  # the setter would change the resources that are freed next
            failed(job)

        executor.run_jobs = before
        executor.handle_job_success = after_success
        executor.handle_job_error = after_failure

    # ------------------------------------------------------------ keeping

    def _note(self, outputs: Iterable[str]) -> Path:
        return self.folder / f"{digest(sorted(map(str, outputs)))}.json"

    def keep(self, job: Any, persistence: Any) -> None:
        """Give the finished outputs of a job their second names, and note Snakemake's records of them."""
        note = self._note(job.output)
        if note.exists():  # a killed attempt left it, and could not be cleared up
            return

        started = persistence._filter_incomplete_keys(map(str, job.output))
        finished = [str(output) for output in job.output if os.path.lexists(output) and output not in started]
        records = {}

        for output in finished:
            _link(Path(output), kept_name(output))
            record = persistence._read_record(output)
            records[output] = record and dict(record.items())

        if records:
            write_json(note, {"outputs": [str(output) for output in job.output], "records": records})

    def restore(self, note: Path, persistence: Any) -> None:
        """Bring back the outputs that a note names, as they were before the attempt."""
        if not note.exists():
            return

        records = read_json(note)["records"]
        if any(_was_replaced(output, note) for output in records):
            self.drop(note)
            return

        persistence._clear_cache()

        for output, record in records.items():
            if record:
                persistence._write_record(output, MetadataRecord.model_validate(record))
            else:
                persistence._delete_record(output)
            persistence._unmark_incomplete(output)

        for output in records:
            kept = kept_name(output)
            if os.path.lexists(kept):
                remove(Path(output))
                os.replace(kept, output)

        note.unlink()
        shown = ", ".join(records)
        logger.info(f"The earlier, finished outputs are back in their place: {shown}")

    def drop(self, note: Path) -> None:
        """Remove the second names that a note lists, and the note."""
        if note.exists():
            for output in read_json(note)["records"]:
                remove(kept_name(output))
            note.unlink()

    # ------------------------------------------------------------ after a killed driver

    def restore_left(self) -> None:
        """Bring back what attempts left whose driver was killed. Call it before Snakemake looks at the files.

        Nothing happens while a job of the killed driver may still be working, or if `status` or `plan` only look. If
        a job has finished without its driver, its new outputs stay, and Snakemake runs the job once more to record
        them.
        """
        notes = sorted(self.folder.glob("*.json"))
        if survey.VARIABLE in os.environ or not notes or self._has_working_jobs():
            return

        persistence = FilePersistence(nolock=True)
        for note in notes:
            outputs = read_json(note)["outputs"]
            is_finished = all(map(os.path.lexists, outputs))
            if is_finished and not any(_is_same(output) for output in outputs):
                self.drop(note)
            else:
                self.restore(note, persistence)

    def _has_working_jobs(self) -> bool:
        """Return whether an earlier driver has jobs in Slurm's queue, or a stage of this run works on this machine."""
        record = Path(self.run.folder) / "slurm_run.json"
        if record.exists() and shutil.which("squeue"):
            try:
                if slurm.queued_jobs(read_json(record)["run"]):
                    return True
            except BadInput:
                return True

        return bool(driver.jobs_at_work(self.run.folder))


def is_hopeless(job: Any) -> bool:
    """Return whether the log of a failed attempt ends with a status that no further attempt can change."""
    return any(read_status(log) in HOPELESS for log in job.log)


def _single_jobs(jobs: Iterable[Any]) -> list[Any]:
    """Return jobs, with the members of groups in place of the groups."""
    return [single for job in jobs for single in (job.jobs if job.is_group() else [job])]


def _was_replaced(output: str, note: Path) -> bool:
    """Return whether an attempt put another model beside a kept checkpoint.json. Models are no declared outputs."""
    model = Path(output).with_name("model")
    if Path(output).name != "checkpoint.json":
        return False
    if not os.path.lexists(model):
        return not model.with_name(EVICTED).exists()  # it was deleted on purpose
    return model.lstat().st_mtime > note.stat().st_mtime


def _is_same(output: str) -> bool:
    """Return whether an output is still the one that was kept."""
    kept = kept_name(output)
    return kept.exists() and os.path.exists(output) and os.path.samefile(output, kept)


def _link(path: Path, kept: Path) -> None:
    """Give a file or a folder a second name; where the file system has no hard links, make a copy."""
    remove(kept)

    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, kept, symlinks=True, copy_function=_link_file)
    else:
        _link_file(path, kept)


def _link_file(path: Any, kept: Any) -> None:
    try:
        os.link(path, kept, follow_symlinks=False)
    except OSError:
        print(f"{path}: this file system has no hard links, so a copy is kept while the job runs", file=sys.stderr)
        shutil.copy2(path, kept, follow_symlinks=False)
