"""Place the stages of a round for a drawing: from top to bottom, each below those that it takes something from."""

from dataclasses import dataclass

from workflow_scripts.overview.page.facts import Row

COLUMN = 170  # pixels between two stages beside each other
LINE = 58  # pixels between two stages one below the other


@dataclass
class Drawing:
    """A drawing in pixels: the places of the names, and lines between them."""

    width: int
    height: int
    names: list[tuple[str, float, float]]  # name, x, y
    lines: list[tuple[float, float, float, float, bool]]  # from x, y to x, y; True if the next round takes it


def drawing_of(graph: Row) -> Drawing:
    """Return the drawing of {"stages": names, "edges": [{"from", "to", "rounds"}]}."""
    layers = _layers(graph)
    widest = max(map(len, layers), default=1)
    places = {}

    for depth, names in enumerate(layers):
        for number, name in enumerate(_in_order(names, graph, places)):
            places[name] = COLUMN * widest * (number + 0.5) / len(names), LINE * (depth + 0.5)

    lines = []
    for edge in graph["edges"]:
        if edge["rounds"] <= 1:
            lines.append((*places[edge["from"]], *places[edge["to"]], bool(edge["rounds"])))

    names = [(name, x, y) for name, (x, y) in places.items()]
    return Drawing(COLUMN * widest, LINE * len(layers), names, lines)


def _in_order(names: list[str], graph: Row, places: dict[str, tuple[float, float]]) -> list[str]:
    """Return the stages of a line from left to right: below those that they take something from, then by name."""

    def middle(name: str) -> tuple[float, str]:
        above = [edge["from"] for edge in graph["edges"] if edge["to"] == name and not edge["rounds"]]
        columns = [places[producer][0] for producer in above if producer in places]
        return sum(columns) / max(1, len(columns)), name

    return sorted(names, key=middle)


def _layers(graph: Row) -> list[list[str]]:
    """Return the stages by the length of the longest way to them within a round."""
    depth = dict.fromkeys(graph["stages"], 0)
    within = [edge for edge in graph["edges"] if not edge["rounds"]]

    for _ in graph["stages"]:
        for edge in within:
            depth[edge["to"]] = max(depth[edge["to"]], depth[edge["from"]] + 1)

    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for name, place in depth.items():
        layers[place].append(name)
    return layers
