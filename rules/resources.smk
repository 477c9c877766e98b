# Resources and commands: where and how a stage runs, which no result depends on, so no params.


def by_attempt(sizing, *section):
    """Memory (MB) and time (minutes, at most a day) of a job, at each further attempt half as much again."""

    def get(name, attempt):
        try:
            asked = (attempt + 1) * sizing(cfg, *section)[name] // 2
            return min(asked, sizes.DAY) if name == "runtime" else asked
        except ValueError as error:
            if workflow.local_exec:
                return 0  # nobody is asked
            raise WorkflowError(f"config: {error}")

    return {
        "mem_mb": lambda wildcards, attempt: get("mem_mb", attempt),
        "runtime": lambda wildcards, attempt: get("runtime", attempt),
    }


def get_generate_resources(version=None):
    """Of a shard's answers in this version (by default the wildcard's): an API takes its turn, and no GPU."""
    model = by_attempt(sizes.of_generation)

    def choose(of_api, of_model):
        return lambda wildcards, attempt: (
            of_api if is_api(version or wildcards.version) else of_model(wildcards, attempt)
        )

    return {
        "mem_mb": choose(sizes.PROCESS, model["mem_mb"]),
        "runtime": choose(sizes.DAY, model["runtime"]),
        "gpu": choose(0, lambda wildcards, attempt: cfg.generate.gpus),
        "api": choose(1, lambda wildcards, attempt: int(bool(cfg.recommend and cfg.recommend.seeker.openai))),
        "nodes": 1,
    }


def get_data_resources():
    """Of a stage that holds its inputs in memory as Python objects, and needs no GPU; some embed titles by a model."""
    embeds = cfg.recommend and cfg.recommend.grounding.embedder not in (None, "tfidf")
    least = sizes.PROCESS if embeds else 1000
    memory = lambda wildcards, input, attempt: (attempt + 1) * (least + 10 * int(input.size_mb))
    return {"mem_mb": memory, "runtime": lambda wildcards, attempt: (attempt + 1) * 30}


def get_judging_resources(reward):
    """Of a stage that rewards answers; where a model gives them a GPU, and memory for one of 8 billion parameters."""
    judged = {"gpu": 1, "mem_mb": lambda wildcards, attempt: (attempt + 1) * 20_000}
    return get_data_resources() | (judged if needs_model(reward) else {})


def get_judging_command(reward):
    return "launch --gpus 1 --" if needs_model(reward) else "python -m"


def get_train_resources(train):
    """Of a training stage: a GPU per process. On several nodes, srun starts it: the plugin calls that mpi."""
    asked = by_attempt(sizes.of_training, train) | {"processes": train.processes, "nodes": train.nodes}
    if train.nodes == 1:
        return asked | {"gpu": train.processes}
    return asked | {"gpu": 0, "mpi": "srun", "tasks": train.nodes, "slurm_extra": f"--gpus-per-node={train.processes}"}


def get_endpoint_flags(openai, name, requests, ledger):
    """How an endpoint is asked and where its account is, as options of these names; nothing where there is none."""
    if not openai:
        return ""
    limits = openai.model_dump(mode="json", include=ENDPOINT)
    return f" {flag(name, json.dumps(limits))} {flag(requests, f'{RUN}/ledger/{ledger}')}"


def get_seeker_flags():
    openai = cfg.recommend and cfg.recommend.seeker.openai
    return get_endpoint_flags(openai, "seeker", "seeker-requests", "seeker_requests")


def get_teacher_flags():
    explore = cfg.recommend and cfg.recommend.explore
    return get_endpoint_flags(explore and explore.teacher.openai, "teacher", "requests", "teacher_requests")


def get_judge_flags():
    return get_endpoint_flags(cfg.judge and cfg.judge.openai, "endpoint", "requests", "judge_requests")


def get_generate_command():
    """`generate GPUS …`, under the Python of its engine's environment."""
    python = flag("python", cfg.python["vllm"]) if is_vllm() and "vllm" in cfg.python else ""
    command = f'launch --gpus "$1" {python} -- workflow_scripts.generate'
    if cfg.generate.tensor_parallel:
        command += f" {flag('tensor-parallel', cfg.generate.tensor_parallel)}"
    command += get_endpoint_flags(cfg.generate.openai, "endpoint", "requests", "requests")
    return f'{command}{get_seeker_flags()} "${{@:2}}"'


prefix = f"set -euo pipefail; export {path}PYTHONPATH={shlex.quote(str(workflow.basedir))} {exported}; "
prefix += 'launch() { python -m workflow_scripts.core.launch "$@"; }; '
prefix += f"generate() {{ {get_generate_command()}; }}; "
prefix += f'judge() {{ python -m workflow_scripts.judge{get_judge_flags()} "$@"; }}; '
prefix += f'explore() {{ python -m workflow_scripts.explore{get_seeker_flags()}{get_teacher_flags()} "$@"; }}; '
shell.prefix(prefix.replace("{", "{{").replace("}", "}}"))
GENERATE_ENV = f"{workflow.basedir}/envs/vllm.yaml" if is_vllm() else ENV
