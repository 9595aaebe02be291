"""Count a package's rooms (its folders and the modules beside them), floors and arrows: `make rooms`.

A room stands one floor above the highest room that it imports; rooms that import each other in a circle share a
floor. An arrow is one room importing another, however often.

    python .ci/rooms.py                     wsol_dist and every folder of it that has folders itself
    python .ci/rooms.py wsol_dist.data -v   the floors of one folder, from the top, with what each room imports
"""

from __future__ import annotations

import sys
from graphlib import TopologicalSorter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import grimp  # of import-linter

Arrows = dict[str, set[str]]


def rooms_of(graph: grimp.ImportGraph, place: str) -> Arrows:
    """Each room directly in `place` -> the rooms beside it that it imports."""
    rooms = sorted(graph.find_children(place))
    return {
        room: {
            other
            for other in rooms
            if other != room
            and graph.find_shortest_chains(room, other, as_packages=True)
            and graph.direct_import_exists(importer=room, imported=other, as_packages=True)
        }
        for room in rooms
    }


def circles_of(arrows: Arrows) -> list[set[str]]:
    """Sets of rooms each of which reaches all others of its set."""
    reach = {room: _reached(arrows, room) for room in arrows}
    groups = {frozenset(other for other in reach[room] if room in reach[other]) for room in arrows}
    return sorted((set(group) for group in groups if group), key=sorted)


def _reached(arrows: Arrows, start: str) -> set[str]:
    seen: set[str] = set()
    open_rooms = [start]
    while open_rooms:
        new = arrows[open_rooms.pop()] - seen
        seen |= new
        open_rooms.extend(new)
    return seen


def floors_of(arrows: Arrows) -> dict[str, int]:
    """The floor of each room, from 1."""
    circles = circles_of(arrows)
    home = {room: next((min(circle) for circle in circles if room in circle), room) for room in arrows}
    merged: Arrows = {home[room]: set() for room in arrows}
    for room, others in arrows.items():
        merged[home[room]] |= {home[other] for other in others} - {home[room]}
    floors: dict[str, int] = {}
    for room in TopologicalSorter(merged).static_order():
        floors[room] = 1 + max((floors[other] for other in merged[room]), default=0)
    return {room: floors[home[room]] for room in arrows}


def main(argv: list[str]) -> int:
    """Print one line for each place, and its floors with -v."""
    places = [word for word in argv if not word.startswith("-")]
    graph = grimp.build_graph("wsol_dist", cache_dir=None)
    for place in places or ["wsol_dist", *_folders_with_folders(graph)]:
        arrows = rooms_of(graph, place)
        floors = floors_of(arrows)
        print(
            f"{place}: {len(arrows)} rooms on {max(floors.values())} floors, "
            f"{sum(map(len, arrows.values()))} arrows, {len(circles_of(arrows))} circles"
        )
        for room in sorted(floors, key=lambda room: (-floors[room], room)) if "-v" in argv else ():
            names = " ".join(sorted(other.rpartition(".")[2] for other in arrows[room]))
            print(f"  {floors[room]:3}  {room.rpartition('.')[2]:<14} -> {names}")
    return 0


def _folders_with_folders(graph: grimp.ImportGraph) -> list[str]:
    return sorted(
        module
        for module in graph.find_children("wsol_dist")
        if any(graph.find_children(child) for child in graph.find_children(module))
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
