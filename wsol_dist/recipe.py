"""Recipes: YAML -> one frozen tree of dataclasses, checked whole, overridden on the command line.

Order: defaults < the recipe's `base` < the recipe < the command line. No interpolation, one level of `base`.
Reading one imports no torch: of a method of this package only its knobs are imported.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import textwrap
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml
from pydantic import NonNegativeInt

from wsol_dist.config.data import DataConfig
from wsol_dist.config.evaluate import EvaluateConfig, RefineConfig, ValConfig
from wsol_dist.config.track import TrackConfig
from wsol_dist.config.train import TrainConfig
from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.options import Overrides, parse_knobs
from wsol_dist.registry import config_class
from wsol_dist.validation import field_names, validated

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    name: str = "run"
    """Name of the run; the run folder is runs/NAME unless --out says otherwise."""
    seed: NonNegativeInt = 0
    """Seed of weights, order, augmentation and dropout."""
    method_name: tyro.conf.Fixed[str] = field(default="", metadata={"key": False})
    """The method; the recipe's `method.name` sets it."""
    method: Annotated[Any, tyro.conf.arg(name="method")] = None
    """The method's own knobs."""
    data: DataConfig = field(default_factory=DataConfig)
    """Shards and sampling."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Optimisation and checkpoints."""
    before: Annotated[tuple[Any, ...], tyro.conf.Suppress] = ()
    """Runs that come first, in RUN/before/NAME, and hand their weights to this one: recipes by name, or mappings.
    They take seed, shards and tracking from this recipe; `--before.0.train.epochs 3` sets a knob of the first,
    `--no-before` drops them."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Scoring."""
    refine: RefineConfig = field(default_factory=RefineConfig)
    """Refining the score maps by pixel clusters before they are scored."""
    val: ValConfig = field(default_factory=ValConfig)
    """Choosing the threshold and the best checkpoint."""
    track: TrackConfig = field(default_factory=TrackConfig)
    """Console, JSONL and W&B."""


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(recipe: str) -> Path:
    """The YAML file of a recipe's name or path.

    Raises:
        UserError: there is no such recipe.
    """
    if recipe.endswith((".yaml", ".yml")):
        path = Path(recipe)
        if not path.is_file():
            raise UserError(
                f"recipe {recipe!r}: there is no such file; recipes by name: {', '.join(recipe_names())}"
            )
        return path
    if recipe not in recipe_names():
        raise UserError(
            f"unknown recipe {recipe!r}; {did_you_mean(recipe, recipe_names())}; or a path to a .yaml file"
        )
    return RECIPES / f"{recipe}.yaml"


def load(recipe: str, overrides: Sequence[str] = ()) -> Config:
    """The resolved configuration of a recipe's name or file with command-line overrides.

    Raises:
        UserError: every mistake of the recipe at once, or of the command line's values, a line each.
        SystemExit: after the help was printed.
    """
    config = from_dict(_with_base(recipe_path(recipe)), origin=recipe)
    return override(config, overrides, prog=f"wsol ... {recipe}")


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """What every command takes that reads a recipe."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """Name of a recipe, or a path to a .yaml file."""
    overrides: Overrides = ()

    @classmethod
    def epilog(cls) -> str:
        """What the help ends with."""
        return overrides_help("RECIPE")

    def config(self) -> Config:
        """The recipe with its overrides."""
        return load(self.recipe, self.overrides)


def overrides_help(target: str) -> str:
    """How to see the flags of a recipe, for the help of a command that takes them."""
    return textwrap.fill(
        f"Every key of the recipe is a flag too, such as --train.epochs 3; --help after {target} lists them. "
        f"Recipes: {', '.join(recipe_names())}",
        width=80,
        break_on_hyphens=False,
    )


def override(config: Config, arguments: Sequence[str], *, prog: str) -> Config:
    """The configuration with command-line arguments applied; `--help` shows the chosen method's own knobs."""
    arguments, config = _override_before(config, arguments, prog=prog)
    if not arguments:
        return config
    method: Any = type(config.method)
    cls = _narrowed(method)
    default = cls(
        **{one.name: getattr(config, one.name) for one in dataclasses.fields(Config)} | {"before": ()}
    )
    return _widened(parse_knobs(cls, arguments, prog=prog, default=default), before=config.before)


@functools.cache
def _narrowed(method: Any) -> type[Config]:
    """`Config` with a method's own knobs as the type of its field `method`."""
    narrowed = dataclasses.make_dataclass(
        "Config",
        [("method", method, field(default_factory=method, kw_only=True))],
        bases=(Config,),
        frozen=True,
        kw_only=True,
    )
    # The class docstring and the field's help are found on the base; only the method's type is narrowed here.
    narrowed.__doc__ = Config.__doc__
    return narrowed


def _widened(config: Config, **changed: Any) -> Config:
    return Config(**{one.name: getattr(config, one.name) for one in dataclasses.fields(Config)} | changed)


def _override_before(config: Config, arguments: Sequence[str], *, prog: str) -> tuple[Sequence[str], Config]:
    """Apply `--before.N.KNOB VALUE` to the N-th run that comes first, and `--no-before`, which drops them all.

    Gives back the other arguments.
    """
    if "--no-before" in arguments:
        arguments = [word for word in arguments if word != "--no-before"]
        config = dataclasses.replace(config, before=())
    own: list[str] = []
    of_run: dict[int, list[str]] = {}
    current = own
    for word in arguments:
        if word.startswith("--"):
            match = re.match(r"--before\.(\d+)\.(.+)", word)
            current = own if match is None else of_run.setdefault(int(match[1]), [])
            word = word if match is None else f"--{match[2]}"
        current.append(word)
    if of_run and max(of_run) >= len(config.before):
        raise UserError(
            f"--before.{max(of_run)}: this recipe has {len(config.before)} runs before it, counted from 0"
        )
    runs = list(config.before)
    for number, words in of_run.items():
        try:
            runs[number] = override(runs[number], words, prog=f"{prog} --before.{number}")
        except UserError as error:
            lines = (f"--before.{number}: {line}" for line in str(error).splitlines())
            raise UserError("\n".join(lines)) from error
    return own, dataclasses.replace(config, before=tuple(runs))


def _before(raw: Any, *, origin: str) -> tuple[Config, ...]:
    """The runs that come first, each a recipe's name or a mapping, which may have a `base`."""
    if not isinstance(raw, list | tuple):
        raise UserError(f"{origin}: before: given {raw!r}; write a list of recipes")
    runs = []
    for number, one in enumerate(raw):
        where = f"{origin}: before.{number}"
        if not isinstance(one, str | dict):
            raise UserError(f"{where}: given {one!r}; write a recipe's name or a mapping")
        tree = _with_base(recipe_path(one)) if isinstance(one, str) else _on_base(dict(one), where=where)
        runs.append(from_dict(tree, origin=where))
        if runs[-1].before:
            raise UserError(f"{where}: {runs[-1].name!r} has runs before it itself; one level is allowed")
    if len({run.name for run in runs}) < len(runs):
        raise UserError(f"{origin}: before: two runs of one name; give each its own `name`")
    return tuple(runs)


def from_dict(raw: dict[str, Any], *, origin: str) -> Config:
    """A configuration from a recipe's plain dictionary.

    Args:
        origin: what to call it in messages.

    Raises:
        UserError: every mistake at once, a line each.
    """
    raw = dict(raw)
    before = _before(raw.pop("before", ()), origin=origin)
    method_raw = raw.pop("method", None)
    if not isinstance(method_raw, dict) or "name" not in method_raw:
        raise UserError(f"{origin}: method.name is missing; write  method: {{name: ts_cam, ...}}")
    method_name = str(method_raw["name"])
    method_config: Any = config_class(method_name)
    knobs = {key: value for key, value in method_raw.items() if key != "name"}
    cls = _narrowed(method_config)
    places = _places(cls, "") | {"name": ["name", "method.name"]}
    try:
        whole = validated(cls, raw | {"method": knobs}, elsewhere=places)
    except UserError as error:
        raise UserError("\n".join(f"{origin}: {line}" for line in str(error).splitlines())) from error
    return _widened(whole, method_name=method_name, before=before)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain dictionary of a configuration: what `from_dict` reads, and what goes into run folder and checkpoint."""
    plain = dataclasses.asdict(config)
    plain["method"] = {"name": plain.pop("method_name"), **plain["method"]}
    plain["before"] = [to_dict(run) for run in config.before]
    return _tuples_to_lists(plain)


def dump(config: Config) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def _tuples_to_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples_to_lists(item) for key, item in value.items()}
    return [_tuples_to_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _places(cls: Any, prefix: str) -> dict[str, list[str]]:
    """Where in the tree below a dataclass each key belongs, as dotted paths: for keys at a wrong level."""
    found: dict[str, list[str]] = {}
    hints = typing.get_type_hints(cls)
    for name in field_names(cls):
        found.setdefault(name, []).append(f"{prefix}{name}")
        if dataclasses.is_dataclass(hints[name]):
            for key, paths in _places(hints[name], f"{prefix}{name}.").items():
                found.setdefault(key, []).extend(paths)
    return found


def _with_base(path: Path) -> dict[str, Any]:
    return _on_base(read_yaml(path), where=path.name, folder=path.parent)


def _on_base(raw: dict[str, Any], *, where: str, folder: Path | None = None) -> dict[str, Any]:
    base = raw.pop("base", None)
    if base is None:
        return raw
    beside = None if folder is None else folder / str(base)
    below = read_yaml(beside if beside is not None and beside.is_file() else recipe_path(str(base)))
    if "base" in below:
        raise UserError(f"{where}: its base {base!r} has a base of its own; one level is allowed")
    return _merged(below, raw)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        # Knobs of one method mean nothing to another: a method of another name starts anew.
        if both and value.get("name", merged[key].get("name")) == merged[key].get("name"):
            merged[key] = _merged(merged[key], value)
        else:
            merged[key] = value
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping of plain values; duplicate keys, which PyYAML keeps the last of, are refused.

    Raises:
        UserError: not YAML, not a mapping, or a key written twice.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values, this is {type(raw).__name__}")
    return raw


class _UniqueKeyLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise yaml.YAMLError(f"line {line}: the key {key!r} is no word")
            if key in seen:
                raise yaml.YAMLError(
                    f"duplicate key {key!r} in lines {seen[key]} and {line}; keep one of them"
                )
            seen[key] = line
        return super().construct_mapping(node, deep)
