"""Print which settings of training and scoring should fit on a card, as predicted by `training/memory.py`.

    python -m workflow_scripts.fits --model FOLDER --card 80
    python -m workflow_scripts.fits --published          # the table in docs/guides/memory.md

For each number of GPUs, the table has the largest `tokens_per_bin` (a power of two, in thousands of 1,024 tokens) of
training, of training with `gradient_checkpointing`, and of the stage `logp`, all in bf16. All tokens count as sampled.
A tenth of the card stays free, for CUDA, for the buffers of NCCL and for what the allocator cannot use.
"""

from collections.abc import Callable, Iterator

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.training.memory import Shape, scoring_bytes, training_bytes

# The shapes in the published config.json of each model.
PUBLISHED = {
    "Llama-3.1-8B": Shape(4096, 14336, 32, queries=4096, keys=1024, vocabulary=128256, tied=False),
    "Qwen2.5-14B": Shape(5120, 13824, 48, queries=5120, keys=1024, vocabulary=152064, tied=False),
    "Qwen2.5-32B": Shape(5120, 27648, 64, queries=5120, keys=1024, vocabulary=152064, tied=False),
    "Llama-3.1-70B": Shape(8192, 28672, 80, queries=8192, keys=1024, vocabulary=128256, tied=False),
}
CARDS = (80, 141)  # GB of H100 and H200
USABLE = 0.9  # share of a card
RANKS = (1, 2, 4, 8, 16, 32, 64)
BUDGETS = [1024 * 2**power for power in range(8)]  # tokens_per_bin, up to 131,072


def largest_budget(card: float, predict: Callable[[int], float]) -> int:
    """Return the largest tokens_per_bin that is predicted to fit on a card of so many GB, or 0."""
    return max((tokens for tokens in BUDGETS if predict(tokens) < USABLE * card * 1e9), default=0)


def budgets_of(shape: Shape, card: float, ranks: int) -> tuple[int, int, int]:
    """Return the largest tokens_per_bin of training, of training with checkpointing, and of scoring."""

    def training(tokens: int) -> float:
        return training_bytes(shape, tokens, tokens, is_bf16=True, ranks=ranks)

    def checkpointed(tokens: int) -> float:
        return training_bytes(shape, tokens, tokens, is_bf16=True, is_checkpointed=True, ranks=ranks)

    def scoring(tokens: int) -> float:
        return scoring_bytes(shape, tokens, tokens, is_bf16=True, ranks=ranks)

    plain, saved, scored = (largest_budget(card, predict) for predict in (training, checkpointed, scoring))
    return plain, saved, scored


def table(shapes: dict[str, Shape], cards: tuple[float, ...]) -> Iterator[str]:
    """Yield the lines of the table, in Markdown. A cell has the budgets of training / with checkpointing / scoring."""
    heads = " | ".join(f"{ranks} GPU{'s' if ranks > 1 else ''}" for ranks in RANKS)
    yield f"| model | card | {heads} |"
    yield "|---" * (2 + len(RANKS)) + "|"

    for name, shape in shapes.items():
        for card in cards:
            cells = [" / ".join(map(_text, budgets_of(shape, card, ranks))) for ranks in RANKS]
            yield f"| {name} | {card:g} GB | {' | '.join(cells)} |"


def _text(budget: int) -> str:
    return f"{budget // 1024}k" if budget else "–"


def shape_of(folder: str) -> Shape:
    """Return the shape of the model in a folder. Raise BadInput for a kind whose memory is not predicted."""
    import torch

    from workflow_scripts.core.pretrained import AutoConfig, AutoModelForCausalLM
    from workflow_scripts.training import peaks

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    shape = peaks.shape_of(model)
    if shape is None:
        raise BadInput(f"{folder}: the memory of {type(model).__name__} is not predicted; only dense decoders are")
    return shape


def main() -> None:
    parser = arguments(__doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--model", help="folder of a model; its config.json is enough")
    chosen.add_argument("--published", action="store_true", help="models of 8 to 70 billion parameters")
    parser.add_argument("--card", type=float, nargs="+", default=CARDS, help="GB of the card (default: 80 and 141)")
    args = parser.parse_args()

    shapes = PUBLISHED if args.published else {args.model: shape_of(args.model)}
    print("tokens_per_bin of train / train with gradient_checkpointing / logp")
    print("\n".join(table(shapes, tuple(args.card))))


if __name__ == "__main__":
    run(main)
