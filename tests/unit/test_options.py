"""The command line: which words belong to what, what is refused, and what the help and the completion list."""

from __future__ import annotations

import importlib
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro
from pydantic import Field, NonNegativeInt, PositiveInt

from wsol_dist.cli import execute, main
from wsol_dist.errors import UserError
from wsol_dist.options import FLAT, Overrides, Switch, arguments_of, names_of, parse, parse_knobs
from wsol_dist.recipe import _narrowed, load, recipe_names

COMMANDS = Path(main.__code__.co_filename).parent / "commands"


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """Some."""

    rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """A rate."""
    flip: bool = True
    """A pair of flags."""
    sides: Annotated[tuple[int, ...] | None, Field(min_length=1)] = None
    """Several."""
    pair: tuple[int, int] = (0, 0)
    """Two."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of a command."""

    target: Annotated[str, tyro.conf.Positional]
    """A target."""
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Some paths."""
    out: str
    """Needed."""
    procs: PositiveInt = 1
    """At least one."""
    workers: NonNegativeInt | None = None
    """Some."""
    which: Literal["a", "b"] = "a"
    """Which."""
    dry_run: Switch = False
    """A switch."""
    knobs: Annotated[Knobs, FLAT] = field(default_factory=Knobs)


@dataclass(frozen=True, kw_only=True)
class Overridden(Options):
    """With overrides."""

    overrides: Overrides = ()


def given(*words: str, cls: type[Options] = Options) -> Options:
    return parse(cls, words, prog="wsol command", description="A command.")


def test_flags_stand_anywhere() -> None:
    options = given(
        "run", "a", "--dry-run", "b", "--out=o", "c", "--rate", "0.25", "--no-flip", "--procs", "3"
    )
    assert (options.target, options.paths, options.out) == ("run", (Path("a"), Path("b"), Path("c")), "o")
    assert (options.procs, options.workers, options.dry_run) == (3, None, True)
    assert options.knobs == Knobs(rate=0.25, flip=False)


def test_underscores_are_dashes() -> None:
    assert given("run", "a", "--out", "o", "--dry_run", "--workers", "0").workers == 0


def test_behind_two_dashes_nothing_is_a_flag() -> None:
    options = given("--out", "o", "--", "--procs", "-1")
    assert (options.target, options.paths) == ("--procs", (Path("-1"),))


def test_a_negative_number_is_a_value() -> None:
    with pytest.raises(UserError, match=r"^--workers: given -1; allowed: 0 or more$"):
        given("run", "a", "--out", "o", "--workers", "-1")


def test_all_values_that_cannot_be_are_told_at_once() -> None:
    with pytest.raises(UserError) as told:
        given("run", "a", "--out", "o", "--procs", "0", "--rate", "nan", "--workers", "-2")
    assert str(told.value).splitlines() == [
        "--procs: given 0; allowed: 1 or more",
        "--workers: given -2; allowed: 0 or more",
        "--rate: given nan; allowed: above 0 and below 1",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "a"), "--out is needed; see wsol command --help"),
        (("run", "--out", "o"), "PATHS is needed; see wsol command --help"),
        (("--procs", "1"), "TARGET and PATHS and --out are needed; see wsol command --help"),
        (("run", "a", "--out"), "Missing value for argument '--out'. Expected 1 values"),
        (("run", "a", "--out", "o", "--which", "c"), "--which"),
        (("run", "a", "--out", "o", "--procs", "x"), "--procs: invalid literal for int() with base 10: 'x'"),
        (("run", "a", "--out", "o", "--prcs", "1"), "--prcs: unknown flag; did you mean '--procs'?"),
        (("run", "a", "--out", "o", "--prcs=1"), "--prcs: unknown flag; did you mean '--procs'?"),
        (("run", "a", "--out", "o", "--no-dry-run"), "--no-dry-run: unknown flag; did you mean '--dry-run'?"),
        (("run", "a", "--out", "o", "--dry-run=0"), "--dry-run: takes no value, given '--dry-run=0'"),
        (
            ("run", "a", "--out", "o", "--workers", "x"),
            "--workers: no type matching {None}|INT could be instantiated",
        ),
        (("run", "a", "--out", "o", "--sides"), "--sides: 0 values given; allowed: 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as told:
        given(*words)
    assert str(told.value).startswith(said) or said in str(told.value)
    assert "\n" not in str(told.value)


def test_unknown_flags_and_what_follows_them_are_overrides() -> None:
    words = ["run", "--train.lr", "1", "2", "--out", "o", "path", "--name=x", "--procs", "2", "--no-before"]
    options = given(*words, cls=Overridden)
    assert isinstance(options, Overridden)
    assert options.overrides == ("--train.lr", "1", "2", "--name=x", "--no-before")
    assert (options.target, options.paths, options.procs) == ("run", (Path("path"),), 2)


def test_a_value_behind_an_equals_sign_is_the_only_one() -> None:
    options = given("--sides=3", "run", "a", "--out", "o", "--sides", "1", "2")
    assert (options.target, options.paths, options.knobs.sides) == ("run", (Path("a"),), (1, 2))


def test_what_is_missing_and_what_is_unknown_are_told_together() -> None:
    with pytest.raises(UserError) as told:
        given("run", "a", "--outt", "o")
    needed, unknown = str(told.value).splitlines()
    assert needed.startswith("--out is needed")
    assert "did you mean '--out'?" in unknown


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_flag_that_the_help_of_a_recipe_lists_is_known(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")  # wider, boxes stand side by side
    config = load(recipe)
    known = {
        flag for one in arguments_of(_narrowed(type(config.method)), default=config) for flag in one.flags
    }
    assert main(["train", recipe, "--help"]) == 0
    rows = re.findall(
        r"^ *(--[a-z][\w.-]*)(?:, (--[\w.-]+))?", capsys.readouterr().out.replace("│", " "), re.MULTILINE
    )
    assert {flag for row in rows for flag in row} - {"", "--out", "--method-name"} == known


def test_keys_of_a_filled_dictionary_are_flags() -> None:
    assert (
        load("deeplab-collage", ["--method.encoder.model-kwargs.width", "16"]).method.encoder.model_kwargs[
            "width"
        ]
        == 16
    )


def test_words_without_a_place_are_refused() -> None:
    for words in (["--rate", "0.5", "two"], ["--pair", "1", "2", "two"]):
        with pytest.raises(UserError, match="'two': no flag takes this word"):
            parse_knobs(Knobs, words, prog="wsol command")


def test_the_help_lists_the_own_flags_and_hands_on_to_the_overrides(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        given("--help")
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "A command." in said
    for one in arguments_of(Options):
        assert (one.flags[0] in said) is not one.positional
    options = given("run", "--help", "x", cls=Overridden)  # --out is not needed for help
    assert isinstance(options, Overridden)
    assert options.overrides == ("--help",)
    with pytest.raises(SystemExit):
        given("--help", cls=Overridden)


def test_the_help_of_a_recipe_needs_no_run_to_follow(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "quickstart", "--follow", "--help"]) == 0
    assert "--train.lr FLOAT" in capsys.readouterr().out


def test_the_help_is_printed_where_nothing_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        given()
    assert end.value.code == 2
    assert "--procs" in capsys.readouterr().out


def every_command() -> list[list[str]]:
    """The words of every command and action."""
    found = []
    for path in sorted(COMMANDS.rglob("[!_]*.py")):
        found.append([part.replace("_", "-") for part in path.relative_to(COMMANDS).with_suffix("").parts])
    return found


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_the_help_of_every_command_says_what_each_flag_is(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert execute([*words, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert said.startswith(f"usage: wsol {' '.join(words)} [-h]")
    assert f": wsol {' '.join(words)}" in said  # the first line of the module is an example
    module = importlib.import_module(".".join(["wsol_dist.commands", *words]).replace("-", "_"))
    for one in arguments_of(module.Options):
        _, flag, after = said.partition(f" {', '.join(one.flags)} ")
        words_on_it = re.split(r"\((?:default|required)", after)[0]
        assert flag, f"{one.flags} is not listed"
        assert re.search(r"[A-Za-z]{3,}\.? |[a-z]{2,}", words_on_it), f"no word on {one.flags[0]}"


def test_completion_knows_every_command_and_its_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "wsol.bash"
    assert main(["completion", "bash"]) == 0
    script.write_text(capsys.readouterr().out)

    def completed(line: str) -> list[str]:
        words = line.split(" ")
        code = (
            f"source {script}; COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}; "
            "$(complete -p wsol | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()

    names = {words[0] for words in every_command()}
    assert names <= set(completed("wsol "))
    assert completed("wsol pseudo-l") == ["pseudo-label"]
    assert {"pack", "verify", "ls"} <= set(completed("wsol shards "))
    assert {"--deep", "--workers"} <= set(completed("wsol shards verify --"))
    assert {"--threshold", "--split"} <= set(completed("wsol evaluate --"))
    assert set(completed("wsol predict --boxes ")) == {"largest", "every"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, ()),
        ("", ()),
        ("val", ("val",)),
        ("val,test", ("val", "test")),
        (" val , test,,val,", ("val", "test")),
        (",", ("",)),
    ],
)
def test_names_joined_by_commas(text: str | None, names: tuple[str, ...]) -> None:
    assert names_of(text) == names
