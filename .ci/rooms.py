"""Count a package's rooms (its folders and the modules beside them), its floors and arrows: `make rooms`.

A room stands one floor above the highest room that it imports; rooms that import one another in a circle share a
floor. An arrow is one room importing another, however often.

    python .ci/rooms.py                     wsol_dist, and each folder in it that holds folders
    python .ci/rooms.py wsol_dist.data -v   one folder, with every room from the top floor down and what it imports
"""

from __future__ import annotations

import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp  # of import-linter

Arrows = dict[str, set[str]]
"""Room -> the rooms that it imports."""


def arrows_in(graph: grimp.ImportGraph, place: str) -> Arrows:
    """The rooms directly in a package and the imports between them, those within functions too."""
    rooms = graph.find_children(place)

    def imports(room: str, other: str) -> bool:
        return graph.direct_import_exists(importer=room, imported=other, as_packages=True)

    return {room: {other for other in rooms - {room} if imports(room, other)} for room in rooms}


def circles_in(arrows: Arrows) -> list[set[str]]:
    """The sets of rooms of which each reaches all others of its set."""
    reach = {room: _reached(arrows, room) for room in arrows}
    circles = {frozenset(other for other in reach[room] if room in reach[other]) for room in arrows}
    return sorted((set(circle) for circle in circles if circle), key=sorted)


def _reached(arrows: Arrows, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = arrows[waiting.pop()] - seen
        seen |= new
        waiting.extend(new)
    return seen


def floors_of(arrows: Arrows) -> dict[str, int]:
    """The floor of each room, from 1."""
    home = {room: room for room in arrows} | {
        room: min(circle) for circle in circles_in(arrows) for room in circle
    }
    below: Arrows = {home[room]: set() for room in arrows}
    for room, others in arrows.items():
        below[home[room]] |= {home[other] for other in others} - {home[room]}
    floors: dict[str, int] = {}
    for room in TopologicalSorter(below).static_order():
        floors[room] = 1 + max((floors[other] for other in below[room]), default=0)
    return {room: floors[home[room]] for room in arrows}


def lines(arrows: Arrows, place: str, *, each: bool) -> list[str]:
    """The counts of one place, and with `each` its rooms."""
    floors, circles = floors_of(arrows), circles_in(arrows)
    told = [
        f"{place}: {len(arrows)} rooms on {max(floors.values())} floors, {sum(map(len, arrows.values()))} arrows, "
        f"{len(circles)} circles"
    ]
    for room in sorted(floors, key=lambda room: (-floors[room], room)) if each else ():
        names = " ".join(sorted(other.rpartition(".")[2] for other in arrows[room]))
        told.append(f"  {floors[room]:2}  {room.rpartition('.')[2]:<12} {names and '-> ' + names}".rstrip())
    return told


def main(argv: list[str]) -> int:
    """Print the counts of the places that were named."""
    root = Path(__file__).resolve().parents[1] / "wsol_dist"
    sys.path.insert(0, str(root.parent))
    graph = grimp.build_graph(root.name, cache_dir=None)
    holding = sorted({path.parent.parent for path in root.glob("*/*/__init__.py")})
    default = [root.name, *(f"{root.name}.{folder.name}" for folder in holding)]
    for place in [word for word in argv if word != "-v"] or default:
        print("\n".join(lines(arrows_in(graph, place), place, each="-v" in argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
