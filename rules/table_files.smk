# Where files of the task tabular lie.


def get_table_files(name):
    """The CSV files of a data set, and the YAML files beside them."""
    table = cfg.tabular.datasets[name]
    files = [file for file in (table.file, table.train, table.test) if file]
    return files + [beside for file in files if os.path.exists(beside := str(Path(file).with_suffix(".yaml")))]


def get_tabular_settings(*keys):
    """The keys of config section `tabular` that a stage uses, so that others rerun nothing there; and which data set."""
    return json.dumps(cfg.tabular.model_dump(mode="json", include={"dataset", "datasets", *keys}), sort_keys=True)


def get_client_files(tag, splits):
    """The task data of each client."""
    name = f"{RUN}/syned_datasets/{tag}_sft_fed/{cfg.tabular.dataset}_client_"
    return [f"{name}{client}.{split}.jsonl" for split in splits for client in range(cfg.tabular.clients)]


def get_fold_file(tag, fold):
    """What a task model is trained on, less the suffix."""
    return f"{RUN}/syned_datasets/{tag}_sft_fed/{cfg.tabular.dataset}_fold_{fold}"


def get_task_data(wildcards):
    """The same of the model of a round and fold: real rows in round 0."""
    return get_fold_file(f"r{wildcards.n}" if int(wildcards.n) else "original_0", wildcards.fold)


def get_task_model(n, fold):
    """The task model of round n, which scores the rows of this fold: that of round 0 knows real rows alone."""
    if n == 0:
        return f"{RUN}/checkpoints/task_r0_all/checkpoint.json"
    return f"{RUN}/checkpoints/{'merged' if cfg.tabular.merge else 'task'}_r{n}_{fold}/checkpoint.json"


def get_task_start(wildcards):
    """What training of a task model starts from: the model of its fold in the round before."""
    n = int(wildcards.n)
    return get_task_model(n - 1, wildcards.fold) if n else f"{RUN}/checkpoints/init/checkpoint.json"
