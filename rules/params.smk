# Params: what a result depends on. Snakemake compares them as a set, so each says what it is.


def flag(name, value):
    """A command line option as one param, such as `--seed 0`."""
    return f"--{name} {shlex.quote(str(value))}"


def get_settings(section, *left_out):
    """A section of the config as the JSON that its stage takes, less how endpoints are asked."""
    return as_json(section.model_dump(mode="json", exclude=set(left_out)))


def as_json(settings):
    return json.dumps(without_endpoint(settings), sort_keys=True)


def get_logp_flags(wildcards):
    """The stored log-probs that training needs, as its options."""
    n, flags = int(wildcards.n), []
    for option, scored in get_compared(n).items():
        flags.append(" ".join([f"--{option}", *(f"{get_logp(n, scored)}/{rank}.pkl" for rank in RANKS)]))
        if option == "ref-logp":
            flags.append(flag("reference", get_checkpoint(scored)))
    return " ".join(flags)


def get_sampling_flags():
    """How a round's answers are sampled, for the log-probs; of rows that others wrote nobody knows it."""
    if cfg.data.source:
        return ""
    sampling = cfg.generate.auto
    return f"--temperature {sampling.temperature} --top-p {sampling.top_p} --top-k {sampling.top_k}"


def get_generate_settings(version):
    """Engine and sampling of one version alone, so that changing another reruns nothing here."""
    settings = cfg.generate.model_dump(
        mode="json", exclude={"gpus", "tensor_parallel", "auto", "trigger", "eval", "pool", "openai"}
    )
    settings |= {"engine": cfg.generate.engine_of(version), version: getattr(cfg.generate, version).model_dump()}
    if is_api(version):
        settings["openai"] = cfg.generate.openai.model_dump(mode="json")
    return as_json(settings)


def get_reward_flags(name, reward):
    """A reward, by the option of that name, and the model that gives it."""
    if not reward:
        return ""
    return flag(name, reward) + (f" {flag('reward-model', cfg.reward_model)}" if needs_model(reward) else "")


def get_engine_code(version):
    """The code behind the engine of one version; a list, as a param of its own."""
    return get_code(f"engines.{cfg.generate.engine_of(version)}")


# What of the section `recommend` a dialogue depends on: in any version, in rollouts, and where it is judged.
PLAYED = ("seeker", "grounding", "list_length")
IN_ROLLOUTS = ("hardcore", "off_formatcheck", "rec_format_check", "resamples")
JUDGED = ("grounding", "list_length", "rerank", "reward", "bonus")


def get_environment_flag(*keys, explore=()):
    """The keys of the section `recommend` (and of its `explore`) that a stage uses, less how endpoints are asked; nothing
    for other tasks."""
    if not cfg.recommend:
        return ""
    chosen = dict.fromkeys(keys, True) | ({"explore": set(explore)} if explore else {})
    return flag("environment", as_json(cfg.recommend.model_dump(mode="json", include=chosen)))


def get_dialogue_flags(version=None):
    """Of the environment that a dialogue is played in (by version) or judged by: what it does, and its catalogue."""
    if not cfg.recommend:
        return ""
    keys = {"auto": PLAYED + IN_ROLLOUTS, "eval": PLAYED, None: JUDGED}[version]
    return f"{get_environment_flag(*keys)} {flag('catalogue', CATALOGUE[0])}"


def get_code(*stages, task=False):
    """The code behind a stage, a param per file: a changed function reruns the stage, a comment does not."""
    modules = [f"workflow_scripts.{stage}" for stage in stages]
    if task:
        modules.append(f"workflow_scripts.tasks.{cfg.task}")
    return [f"{file} {digest}" for file, digest in code_digests(*modules).items()]
