"""List what the real run asks for: updates on the answers of one policy, jobs with their resources, space on disk."""

from collections.abc import Iterator

from workflow_scripts.config.load import Config
from workflow_scripts.rehearsal.findings import Finding
from workflow_scripts.rehearsal.rehearsed import Rehearsed
from workflow_scripts.updates import most_units, train_prompts
from workflow_scripts.workflow import resources

STALE = 64  # updates on one policy's answers beyond which a stop (train.min_ess) is advisable
BYTES_PER_TOKEN = 60  # of an answer, in results, ledger, graded results, meta and data together
MOMENTS = 3  # copies of the weights in a saved state: the weights and two moments


def check(rehearsed: Rehearsed) -> Iterator[Finding]:
    """Yield the size of the real run."""
    yield from updates(rehearsed.recipe)

    try:
        weights = resources.weights_mb(rehearsed.recipe)
    except ValueError as error:
        yield Finding("fail", "model.parameters", f"{error}.")
        return

    yield from jobs(rehearsed.recipe)
    yield from disk(rehearsed.recipe, weights)


# ---------------------------------------------------------------- updates


def updates(recipe: Config) -> Iterator[Finding]:
    """Yield how many updates a policy's answers serve at most."""
    train = recipe.train
    units = most_units(recipe, train_prompts(recipe))
    if units is None:
        yield Finding("know", "train", "how many rows a round trains on is unknown before its data is here.")
        return

    count = train.updates(units)
    text = f"a round trains on up to {units:,} rows or pairs in {count:,} updates."
    if train.needs_behaviour and count > STALE and not train.min_ess and not recipe.data.source:
        text = f"a round's answers, by one policy, serve up to {count:,} updates, and nothing stops it."
        yield Finding("waste", "train", text, "Set train.min_ess, or let a round take fewer prompts.")
    else:
        yield Finding("know", "train", text)


def answers_per_prompt(recipe: Config) -> int:
    """Return how many answers a round has to each prompt."""
    generate = recipe.generate
    return generate.auto.samples + (2 * generate.trigger.samples if generate.trigger else 0)


# ---------------------------------------------------------------- jobs


def jobs(recipe: Config) -> Iterator[Finding]:
    """Yield what a scheduler is asked for, by stage."""
    lines = []
    sizes = resources.sizes_of_stages(recipe)

    for stage, (count, gpus, (memory, minutes)) in sizes.items():
        lines.append(f"{stage}: {count} × {gpus} GPU, {memory / 1000:.0f} GB, {min(minutes, resources.DAY):.0f} min")

    text = f"a round asks a scheduler for: {'; '.join(lines)}."
    yield Finding(
        "know", "resources", text, "Times are limits. Stages without a model ask for more as their input grows."
    )


# ---------------------------------------------------------------- disk


def disk(recipe: Config, weights: float) -> Iterator[Finding]:
    """Yield how much space the run needs. `weights` is the size of the fp32 weights, in MB."""
    checkpoints = recipe.rounds + (1 if recipe.cold_start else 0)
    training = MOMENTS * 2 * weights  # two saved states at a time
    prompts = train_prompts(recipe) or 0
    prompts = min(prompts, recipe.prompts_per_round or prompts)
    tokens = recipe.rounds * prompts * answers_per_prompt(recipe) * recipe.generate.auto.max_tokens
    answers_mb = 0.0 if recipe.data.source else tokens * BYTES_PER_TOKEN / 1e6

    total = (checkpoints * weights + training + answers_mb) / 1000
    text = (
        f"up to {total:,.0f} GB: {checkpoints} checkpoints of {weights / 1000:,.0f} GB, {training / 1000:,.0f} GB "
        f"while a round trains, {answers_mb / 1000:,.0f} GB of answers if each has max_tokens."
    )
    yield Finding("know", "disk", text)
