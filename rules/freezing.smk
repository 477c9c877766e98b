# Prompts from files are frozen, and one digest per shard is brought up to date, while this file is read.

SPLITS = {"train": cfg.prompts.train, "pool": cfg.prompts.pool, "eval": cfg.prompts.eval}
FROZEN = {name: f"{RUN}/prompts/{name}.parquet" for name, split in SPLITS.items() if split}
PROMPTS = FROZEN | ({"train": f"{RUN}/prompts/train.parquet"} if cfg.prompts.pool else {})  # made by a job
FILES = [split.file for split in SPLITS.values() if split and split.file]
# What a job must fetch, or makes of tables, cannot be frozen while this is read.
SOURCES = [] if cfg.tabular or any(map(is_on_hub, FILES)) else FILES

READ = [*SOURCES, *filter(os.path.exists, [cfg.prompts.catalogue or ""])]  # what the frozen prompts are made of


def get_shard_files(split):
    return [f"{RUN}/prompts/shards/{split}/{rank}.txt" for rank in RANKS]


def check_given():
    """That the data which the config names is here, where no rule makes or fetches it."""
    given = [*FILES, cfg.cold_start and cfg.cold_start.file, cfg.data.source and cfg.data.source.file]
    given += [cfg.selection and cfg.selection.inference, cfg.prompts.catalogue]
    given += [file for files in cfg.results.values() for file in (*files.auto, *files.trigger)]
    given += sum(map(get_table_files, cfg.tabular.datasets if cfg.tabular else ()), [])
    given = [file for file in filter(None, given) if not (file.startswith(f"{RUN}/") or is_on_hub(file))]
    if missing := [file for file in dict.fromkeys(given) if not os.path.exists(file)]:
        recipe = f" (see the head of {workflow.overwrite_configfiles[0]})" if workflow.overwrite_configfiles else ""
        raise WorkflowError(f"config: there is no file {' nor '.join(missing)}{recipe}")


def is_running():
    """Whether another Snakemake works on this run's prompts: then this one leaves them alone."""
    locks = glob.glob(".snakemake/locks/*")
    return any(f"{RUN}/prompts" in Path(lock).read_text() for lock in locks if os.path.exists(lock))


def freeze_sources():
    """Freeze prompts that come from files, if file, settings or code changed since. This cannot wait for a job,
    since the shards that an edited file changes must be known when the jobs are worked out."""
    settings, stamp = cfg.prompts.model_dump(mode="json"), Path(f"{RUN}/prompts/.stamp.json")
    code = code_digests("workflow_scripts.freeze_prompts", f"workflow_scripts.tasks.{cfg.task}")
    now = json.dumps([settings, cfg.seed, code, [prompt_shards.file_state(source) for source in READ]])
    if not (stamp.exists() and stamp.read_text() == now and all(map(os.path.exists, FROZEN.values()))):
        for path in filter(os.path.exists, FROZEN.values()):
            if file_digest(path) != read_json(manifest_of(path))["sha256"]:
                raise WorkflowError(
                    f"{path} was edited by hand, and what it is made of changed too ({', '.join(READ)}, `prompts`, `seed` "
                    f"or the code of task {cfg.task}): undo that, or delete {path} and with it the edits"
                )
        freeze_prompts.freeze(task, settings, cfg.seed, stamp.parent)
        stamp.write_text(now)


check_given()
if not is_running():
    try:
        if SOURCES:
            freeze_sources()
        for split, path in PROMPTS.items():
            if os.path.exists(path):  # which may have been edited by hand
                check = partial(freeze_prompts.check_edited, path, split, PROMPTS["eval"])
                prompt_shards.sync(f"{RUN}/prompts/shards/{split}", cfg.shards, path, check)
    except BadInput as error:
        raise WorkflowError(str(error))
