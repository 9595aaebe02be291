"""The review page as HTML: served, or a folder that needs no server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jinja2

from wsol_dist.errors import UserError
from wsol_dist.files import write_atomically
from wsol_dist.review.cards import Cards
from wsol_dist.review.journal import SCHEMA, Choice
from wsol_dist.review.pictures import SIDES_PX, Outside, Pictures

PAGE, DATA, IMAGES = "index.html", "cards.js", "images"


def render(cards: Cards, *, folder: Path, token: str = "", static: bool = False) -> str:
    """The page without its cards, which it loads.

    Args:
        token: that the page sends with each choice.
        static: load the cards from a file beside it, keep choices in the browser.
    """
    loaders = [jinja2.PackageLoader("wsol_dist", part) for part in ("review", "report")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    about = cards.predictions.about
    setting = {"token": token, "static": static, "sides": SIDES_PX, "schema": SCHEMA}
    return environment.get_template("review.html.j2").render(
        title=folder.resolve().name,
        classes=cards.classes,
        num_boxes=cards.num_boxes,
        num_images=cards.num_images,
        num_without=cards.num_without,
        num_broken=cards.num_broken,
        threshold=about.get("threshold") or {},
        method=(about.get("model") or {}).get("method") or "",
        static=static,
        setting=setting,
        data=DATA,
    )


def write_static(
    cards: Cards,
    choices: dict[int, Choice],
    out: Path,
    *,
    folder: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Write the page, its data and its pictures; `index.html` comes last.

    Args:
        folder: of the predictions, for the title.
        progress: told after each image.

    Returns:
        A line for each image that cannot be shown.

    Raises:
        UserError: the folder is not empty and was not made by this command.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / DATA).is_file())):
        raise UserError(f"--static {out}: is not empty and no review page; give another folder")
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    (out / PAGE).unlink(missing_ok=True)
    content = cards.to_json() | {"choices": {card: one.to_json() for card, one in choices.items()}}
    text = json.dumps(content, allow_nan=False)
    write_atomically(out / DATA, f"window.REVIEW = {text};\n".encode())
    problems = []
    pictures = Pictures(cards)
    card_of = dict(zip(cards.image, range(len(cards)), strict=True))
    for number, image in enumerate(cards.images):
        try:
            data = pictures.jpeg(card_of[image], SIDES_PX[0])
            write_atomically(out / IMAGES / f"{number}.jpg", data, sync=False)
        except (UserError, Outside, OSError) as error:
            problems.append(f"not shown: {error}")
        progress(1)
    write_atomically(out / PAGE, render(cards, folder=folder, static=True).encode())
    return problems
