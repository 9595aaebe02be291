"""Recipes: YAML -> one frozen tree of dataclasses, checked whole, overridden on the command line.

Order: defaults < the recipe's `base` < the recipe < the command line. No interpolation, one level of `base`.
Reading one imports no torch: of a method of this package only its knobs are imported.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pydantic
import tyro
import yaml

from wsol_dist.config.data import DataConfig
from wsol_dist.config.evaluate import EvaluateConfig, RefineConfig, ValConfig
from wsol_dist.config.track import TrackConfig
from wsol_dist.config.train import TrainConfig
from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.options import parse_knobs, split_arguments
from wsol_dist.registry import config_class

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    name: str = "run"
    """Name of the run; the run folder is runs/NAME unless --out says otherwise."""
    seed: int = 0
    """Seed of weights, order, augmentation and dropout."""
    method_name: tyro.conf.Fixed[str] = ""
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

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, given {self.seed}")


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


def load(recipe: str, overrides: list[str] | None = None) -> Config:
    """The resolved configuration of a recipe's name or file with command-line overrides.

    Raises:
        UserError: every mistake of the recipe at once, a line each; the first of the command line.
        SystemExit: after the help was printed.
    """
    config = from_dict(_with_base(recipe_path(recipe)), origin=recipe)
    return override(config, overrides or [], prog=f"wsol ... {recipe}")


def parse_with_recipe(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, Config]:
    """A command's own arguments (with a positional `recipe`), and the recipe overridden by all the others.

    The parser must be made with `add_help=False, allow_abbrev=False`: `--help` behind a recipe shows the recipe's
    knobs, alone it shows the command's. With `recipe` optional (`nargs="?"`) its default is loaded.
    """
    if argv[:1] in ([], ["-h"], ["--help"]) and parser.get_default("recipe") is None:
        parser.print_help()
        print("\nBehind the recipe: --help lists its knobs; recipes: " + ", ".join(recipe_names()))
        raise SystemExit(0 if argv else 2)
    own, overrides = split_arguments(parser, argv)
    return own, load(own.recipe, overrides)


def override(config: Config, arguments: list[str], *, prog: str) -> Config:
    """The configuration with command-line arguments applied; `--help` shows the chosen method's own knobs."""
    arguments, config = _override_before(config, arguments, prog=prog)
    if not arguments:
        return config
    narrowed = dataclasses.make_dataclass(
        "Config",
        [("method", type(config.method), field(default=config.method, kw_only=True))],
        bases=(Config,),
        frozen=True,
        kw_only=True,
    )
    # The class docstring and the field's help are found on the base; only the method's type is narrowed here.
    narrowed.__doc__ = Config.__doc__
    default = narrowed(**{f.name: getattr(config, f.name) for f in dataclasses.fields(config)})
    chosen = parse_knobs(narrowed, arguments, prog=prog, default=default)
    return Config(**{f.name: getattr(chosen, f.name) for f in dataclasses.fields(Config)})


def _override_before(config: Config, arguments: list[str], *, prog: str) -> tuple[list[str], Config]:
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
            raise UserError(f"--before.{number}: {error}") from error
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
    method_config = config_class(method_name)
    knobs = {key: value for key, value in method_raw.items() if key != "name"}
    problems: list[str] = []
    places = _places(Config, "") | {"name": ["name", "method.name"]}
    for key, paths in _places(method_config, "method.").items():
        places.setdefault(key, []).extend(paths)
    method = _validated(method_config, knobs, prefix="method.", problems=problems, places=places)
    whole = _validated(Config, raw, prefix="", problems=problems, places=places)
    if problems:
        raise UserError("\n".join(f"{origin}: {problem}" for problem in problems))
    return dataclasses.replace(whole, method=method, method_name=method_name, before=before)


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


def _validated(
    cls: type, raw: dict[str, Any], *, prefix: str, problems: list[str], places: dict[str, list[str]]
) -> Any:
    try:
        return pydantic.TypeAdapter(cls).validate_python(raw, extra="forbid")
    except pydantic.ValidationError as error:
        problems += [_problem(cls, one, prefix, places) for one in error.errors()]
        return None


def _problem(cls: type, error: Any, prefix: str, places: dict[str, list[str]]) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        key = str(error["loc"][-1])
        elsewhere = places.get(key, [])
        if elsewhere:
            return f"{prefix}{path}: unknown key here; it belongs at {' or '.join(elsewhere)}"
        allowed = _field_names(cls, error["loc"][:-1])
        return f"{prefix}{path}: unknown key; {did_you_mean(key, allowed)}"
    message = error["msg"].removeprefix("Value error, ")
    given = (
        ""
        if isinstance(error["input"], dict)
        else f": given {error['input']!r} ({type(error['input']).__name__})"
    )
    return f"{prefix}{path}{given}: {message}" if path else f"{prefix.rstrip('.')}{given}: {message}"


def _places(cls: Any, prefix: str) -> dict[str, list[str]]:
    """Where in the tree below a dataclass each key belongs, as dotted paths: for keys at a wrong level."""
    import typing

    found: dict[str, list[str]] = {}
    hints = typing.get_type_hints(cls)
    for name in _field_names(cls, ()):
        found.setdefault(name, []).append(f"{prefix}{name}")
        if dataclasses.is_dataclass(hints[name]):
            for key, paths in _places(hints[name], f"{prefix}{name}.").items():
                found.setdefault(key, []).extend(paths)
    return found


def _field_names(cls: Any, path: tuple[Any, ...]) -> list[str]:
    import typing

    for part in path:
        cls = typing.get_type_hints(cls).get(str(part), cls)
    names = [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    return [name for name in names if name != "method_name"]


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
