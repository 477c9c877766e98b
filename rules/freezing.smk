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
    """That the files which the config names are here, where no rule makes or fetches them."""
    given = [(f"prompts.{name}.file", split.file) for name, split in SPLITS.items() if split]
    given += [("prompts.catalogue", cfg.prompts.catalogue), ("cold_start.file", cfg.cold_start and cfg.cold_start.file)]
    given += [("data.source.file", cfg.data.source and cfg.data.source.file)]
    given += [("selection.inference", cfg.selection and cfg.selection.inference)]
    for key, name in (("reward", cfg.reward), ("selection.metric", cfg.selection and cfg.selection.metric)):
        given += [(key, file) for file in get_reward_files(name) if not needs_model(name)]
    for n, files in cfg.results.items():
        given += [(f"results.{n}", file) for file in (*files.auto, *files.trigger)]
    for name in cfg.tabular.datasets if cfg.tabular else ():
        given += [(f"tabular.datasets.{name}", file) for file in get_table_files(name)]
    given = {file: key for key, file in given if file and not (file.startswith(f"{RUN}/") or is_on_hub(file))}
    if missing := [f"{key}: there is no file {file}" for file, key in given.items() if not os.path.exists(file)]:
        raise WorkflowError("config: " + "; ".join(missing) + get_hint())


def get_hint():
    """Where a recipe of this repository says what data it needs."""
    recipe = next(iter(workflow.overwrite_configfiles), "")
    return f" (see the head of {recipe})" if f"{workflow.basedir}/recipes/" in os.path.abspath(recipe) else ""


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
