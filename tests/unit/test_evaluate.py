"""The evaluator on small shards made here: exact at any number of ranks, and its files and command line."""

from __future__ import annotations

import dataclasses
import json
import threading
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from wsol_dist.cli import main
from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.data.packing.pack import PackOptions, make_plan, pack
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.data.stream.stream import evaluation_batches
from wsol_dist.errors import UserError
from wsol_dist.evaluator import record, scoring
from wsol_dist.evaluator.counting import check_counted, check_unique
from wsol_dist.evaluator.evaluate import evaluate_checkpoint
from wsol_dist.evaluator.identity import Identity, identify
from wsol_dist.methods.base import Localization, Method, top_class
from wsol_dist.methods.config import MethodConfig
from wsol_dist.metrics import threshold as thresholds
from wsol_dist.metrics.pxap import PxAP
from wsol_dist.processes.ranks import Ranks
from wsol_dist.recipe import dump, from_dict
from wsol_dist.runs import checkpoint
from wsol_dist.runs.model import build_method
from wsol_dist.runs.rows import read_rows

CONFIG = EvaluateConfig(size_px=32, batch_size=4, workers=0, cases=3)
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255))
BROKEN = "test/07"


class Rectangles:
    """Rectangles of the class's colour on grey; image 7 of test does not decode, image 3 has no box."""

    classes = tuple("abcdef")
    known_counts: dict[str, int] = {}

    def items(self):
        for split, count in (("train", 6), ("val", 9), ("test", 17)):
            for number in range(count):
                name = f"{split}/{number:02d}"
                yield Item(id=name, split=split, labels=(number % 6,), where=name)

    def read(self, item):
        number = int(item.id[-2:])
        rng = np.random.default_rng(number)
        x0, y0 = rng.integers(0, 20, 2).tolist()
        x1, y1 = x0 + int(rng.integers(10, 28)), y0 + int(rng.integers(8, 20))
        image = np.full((40, 48, 3), 90, np.uint8)
        image[y0:y1, x0:x1] = COLOURS[item.labels[0]]
        mask = np.zeros((40, 48), np.uint8)
        mask[y0:y1, x0:x1] = 1
        data = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        return Sample(
            id=item.id,
            image=data[:60] if item.id == BROKEN else data,
            extension="png",
            labels=item.labels,
            boxes_xyxy=None if number == 3 else np.array([[x0, y0, x1 - 1, y1 - 1]], np.float64),
            box_frame_wh=None if number == 3 else (48, 40),
            mask=mask,
        )


@dataclass(frozen=True, kw_only=True)
class ColourConfig(MethodConfig):
    """How far a pixel's neighbours count."""

    blur_px: int = 3


class Colour(Method):
    """Finds pixels of the class's colour: a localizer that needs no training and is not perfect."""

    Config = ColourConfig
    image_px, mean, std = 24, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, config, num_classes):
        super().__init__()
        self.blur_px = config.blur_px
        self.colour_C3 = torch.nn.Parameter(torch.tensor(COLOURS[:num_classes]) / 255.0)

    def localize(self, image_BCHW, class_BK=None):
        distance = (image_BCHW[:, None] - self.colour_C3[None, :, :, None, None]).abs().sum(dim=2)
        near_BChw = torch.nn.functional.avg_pool2d((1.5 - distance).clamp(min=0), self.blur_px)
        prob_BC = near_BChw.mean(dim=(2, 3)).softmax(dim=1)
        class_BK = top_class(prob_BC, class_BK)
        rows = torch.arange(len(image_BCHW))[:, None]
        return Localization(prob_BC=prob_BC, class_BK=class_BK, map_BKhw=near_BChw[rows, class_BK])


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rectangles")
    options = PackOptions(out=folder, workers=1, samples_per_shard=5)
    pack(make_plan("rectangles", Rectangles(), ColourConfig(), options), Rectangles(), options)
    return folder


class ThreadRanks(Ranks):
    """Ranks that are threads of this process: what gloo does between processes, without starting any."""

    def __init__(self, rank, world, barrier, shared):
        super().__init__(rank=rank, world=world)
        object.__setattr__(self, "both", (barrier, shared))

    def gather(self, thing):
        barrier, shared = self.both
        shared[self.rank] = thing
        barrier.wait(20)
        things = list(shared)
        barrier.wait(20)
        return things

    def all_sum(self, counts):
        return np.sum(self.gather(counts), axis=0)


def evaluate(shards, *, world=1, method=None, split="test", threshold=None, config=CONFIG):
    """The evaluation of each rank."""
    barrier, shared, results = threading.Barrier(world), [None] * world, [None] * world

    def work(rank):
        results[rank] = evaluate_checkpoint(
            method or Colour(ColourConfig(), 6),
            shards,
            split=split,
            config=config,
            ranks=ThreadRanks(rank, world, barrier, shared),
            threshold=threshold or thresholds.fixed(0.3),
        )

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(1, world)]
    for thread in threads:
        thread.start()
    work(0)
    for thread in threads:
        thread.join()
    return results


def without_probabilities(rows):
    # Their last bits depend on which images share a batch.
    return [{key: value for key, value in row.items() if key != "predicted_prob"} for row in rows]


@pytest.mark.parametrize("threshold", [thresholds.fixed(0.3), thresholds.oracle()])
@pytest.mark.parametrize("world", [2, 3, 19])
def test_any_number_of_ranks_gives_the_same(shards, world, threshold):
    alone = evaluate(shards, threshold=threshold)[0]
    found = evaluate(shards, world=world, threshold=threshold)
    # The rows are where they are written.
    assert [len(one.rows) for one in found] == [17] + [0] * (world - 1)
    assert without_probabilities(found[0].rows) == without_probabilities(alone.rows)
    for one in found:
        assert one.records == alone.records
        assert one.threshold == alone.threshold
        assert one.broken == alone.broken == [BROKEN]
        assert [case.id for case in one.cases] == [case.id for case in alone.cases]
        assert all(np.array_equal(one.curves[name], alone.curves[name]) for name in alone.curves)


def test_the_numbers_are_those_of_the_rows(shards):
    found = evaluate(shards)[0]
    with_boxes = [row for row in found.rows if row["gt_boxes"]]
    # The broken image stays in the denominator, the one without boxes is in none of the box metrics.
    assert (len(found.rows), len(with_boxes)) == (17, 16)
    for name in ("gt_known", "top1_loc", "top5_loc"):
        assert found.value(name) == 100 * sum(row[name] for row in with_boxes) / 16
    for name in ("cls_top1", "cls_top5"):
        assert found.value(name) == 100 * sum(row[name] for row in found.rows) / 17
    assert found.value("gt_known") == found.curves["gt_known"][76] > 80
    assert {record.protocol for record in found.records} == {
        "topk_loc",
        "centre_box",
        "classification",
        "max_box_acc",
        "max_box_acc_v2",
        "pxap",
    }
    broken = next(row for row in found.rows if row["id"] == BROKEN)
    assert (broken["gt_known"], broken["cls_top5"], broken["decoded"]) == (False, False, False)
    assert broken["error_kind"] == "classification"
    assert (
        found.value("error/classification")
        == 100 * sum(row["error_kind"] == "classification" for row in with_boxes) / 16
    )


def test_an_oracle_takes_the_best_level_of_the_split_and_its_rows_are_read_there(shards):
    found = evaluate(shards, threshold=thresholds.oracle())[0]
    level = found.threshold.level
    assert found.threshold.source == "oracle"
    assert found.value("gt_known") == found.curves["gt_known"].max() == found.curves["gt_known"][level]
    fixed = evaluate(shards, threshold=thresholds.fixed(found.threshold.value))[0]
    assert list(fixed.rows) == list(found.rows)


def test_a_sample_that_cannot_be_read_at_all_stays_in_the_denominator(shards, tmp_path):
    index = Index.load(shards)
    rows = index.rows("test")
    place = next(at for at, one in enumerate(rows.ids.to_pylist()) if one == "test/05")
    for file in shards.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tar = tmp_path / index.path(int(rows.shard[place])).name
    data = bytearray(tar.read_bytes())
    start = int(rows.offset[place])
    data[start : start + int(rows.bytes[place])] = b"\xff" * int(rows.bytes[place])
    tar.write_bytes(data)
    before, after = evaluate(shards)[0], evaluate(tmp_path)[0]
    assert sorted(after.broken) == ["test/05", BROKEN]
    assert after.value("gt_known") == pytest.approx(before.value("gt_known") - 100 / 16)
    assert after.value("max_box_acc") == pytest.approx(before.value("max_box_acc") - 100 / 16)


def test_missing_and_repeated_images_are_named():
    check_counted(["a", "b", "c"], np.array([1, 1, 1]))
    with pytest.raises(UserError, match=r"1 of 3 images were not scored: b;"):
        check_counted(["a", "b", "c"], np.array([1, 0, 1]))
    with pytest.raises(UserError, match=r"scored several times: a;"):
        check_counted(["a", "b"], np.array([2, 1]))
    with pytest.raises(UserError, match=r"not in the index: z;"):
        check_counted(["a"], np.array([1]), strange=["z"])
    with pytest.raises(UserError, match=r"i9;"):
        check_counted([f"i{number}" for number in range(30)], np.zeros(30, np.int64))
    with pytest.raises(UserError, match=r"1 of 3 images were in the index several times: a;"):
        check_unique(pa.array(["a", "b", "a"]))


@pytest.mark.parametrize(
    ("wanted", "again", "message"),
    [
        ([row for row in range(17) if row != 5], None, r"^1 of 17 images were not scored: {};"),
        (None, [5], r"^1 of 17 images were scored several times: {};"),
    ],
    ids=["dropped", "repeated"],
)
def test_an_order_that_drops_or_repeats_an_image_ends_the_evaluation_with_its_name(
    shards, monkeypatch, wanted, again, message
):
    def wrong_order(index, **how):
        yield from evaluation_batches(index, **how, positions=wanted)
        if again:
            yield from evaluation_batches(index, **how, positions=again)

    monkeypatch.setattr("wsol_dist.evaluator.evaluate.evaluation_batches", wrong_order)
    at_fault = Index.load(shards).rows("test").ids[5].as_py()
    with pytest.raises(UserError, match=message.format(at_fault)):
        evaluate(shards)


def test_a_map_that_is_not_finite_is_an_error_with_the_image(shards):
    method = Colour(ColourConfig(), 6)
    with torch.no_grad():
        method.colour_C3[2] = float("nan")
    with pytest.raises(UserError, match=r"test/\d\d: the score map holds NaN"):
        evaluate(shards, method=method)


def test_a_mistake_in_a_metric_is_not_called_broken_weights(shards, monkeypatch):
    def update(self, scored):
        raise ValueError("shapes do not match")

    monkeypatch.setattr(PxAP, "update", update)
    with pytest.raises(ValueError, match=r"^shapes do not match$"):
        evaluate(shards)


def test_record_rows_and_pictures(shards, tmp_path):
    found = evaluate(shards)[0]
    pictures = record.draw_cases(found)
    identity = Identity(weights="ab", index_name="rectangles", index_sha256="cd", settings={"seed": 3})
    path = record.save(
        found,
        tmp_path,
        run="r",
        method="colour",
        step=12,
        checkpoint="step-00000012",
        identity=identity,
        pictures=pictures,
    )
    assert path.name == "test-step-00000012.json"
    written = json.loads(path.read_text())
    assert (written["num_images"], written["broken"], written["image_px"]) == (17, [BROKEN], 24)
    assert written["threshold"] == {"source": "fixed", "level": 76, "value": 0.3, "from": None}
    assert (written["weights"], written["scored_as"]) == ("ab", {"seed": 3})
    assert written["index"] == {"name": "rectangles", "sha256": "cd"}
    assert all(number["threshold_source"] in ("fixed", "oracle", "none") for number in written["metrics"])
    assert len(written["curves"]["gt_known"]) == len(written["curves"]["max_box_acc"]) == 255
    for case in written["cases"]:
        assert cv2.imread(str(tmp_path / case["picture"])).shape[1] > 2 * 200
    rows, about = read_rows(path.with_suffix(".parquet"))
    assert about["size_px"] == "32"
    assert [row["id"] for row in rows] == [row["id"] for row in found.rows]
    assert [row["box"] for row in rows] == [row["box"] for row in found.rows]
    assert not list(tmp_path.rglob("*.tmp"))


RECIPE = {
    "name": "colours",
    "method": {"name": f"{__name__}:Colour"},
    "evaluate": {"size_px": 32, "batch_size": 4, "workers": 0, "cases": 2},
    "track": {"wandb": "off"},
}


@pytest.fixture
def run_folder(tmp_path, shards):
    """A run with two checkpoints, as training leaves it."""
    folder = tmp_path / "run"
    config = from_dict(RECIPE | {"data": {"index": str(shards)}}, origin="test")
    weights = build_method(config, num_classes=6).state_dict()
    for step in (10, 20):
        checkpoint.begin(folder, step)
        state = checkpoint.TrainState(step=step, position=step, world=1, index_sha256="")
        metadata = {"method": config.method_name, "classes": json.dumps(list("abcdef")), "trained": "[]"}
        checkpoint.finish(folder, state, weights, config_yaml=dump(config), metadata=metadata)
    (folder / "config.yaml").write_text(dump(config))
    return folder


def read_record(folder: Path, name: str):
    return json.loads((folder / "eval" / f"{name}.json").read_text())


def test_val_chooses_and_test_gets_its_threshold(run_folder, shards, capsys):
    assert main(["evaluate", str(run_folder), "--index", str(shards), "--split", "val,test"]) == 0
    val, test = (read_record(run_folder, f"{split}-step-00000020") for split in ("val", "test"))
    assert val["threshold"]["source"] == "oracle"
    assert test["threshold"] == val["threshold"] | {"source": "val", "from": "eval/val-step-00000020.json"}
    sources = {number["name"]: number["threshold_source"] for number in test["metrics"]}
    assert (sources["gt_known"], sources["max_box_acc"], sources["box_acc"]) == ("val", "oracle", "val")
    shown = capsys.readouterr().out
    assert "as chosen on val" in shown
    assert "centre box" in shown
    # Alone, test finds val's record of the same step; another step has none, and nothing falls back in silence.
    assert main(["evaluate", str(run_folder), "--index", str(shards)]) == 0
    assert read_record(run_folder, "test-step-00000020")["threshold"] == test["threshold"]
    step_10 = ["evaluate", str(run_folder), "--index", str(shards), "--step", "10"]
    capsys.readouterr()
    assert main(step_10) == 2
    said = capsys.readouterr().err
    assert "the threshold of 'test' is the one that 'val' chooses: 'val' was not scored at step 10" in said
    assert "give --split val,test without --threshold, or say --threshold oracle, fixed or a number" in said
    assert not (run_folder / "eval" / "test-step-00000010.json").exists()
    assert main([*step_10, "--threshold", "fixed"]) == 0
    assert "fixed threshold 0.120, the recipe's" in capsys.readouterr().out
    assert read_record(run_folder, "test-step-00000010")["threshold"]["source"] == "fixed"
    # Every scoring of the test split is on record, and none of val.
    lines = [json.loads(line) for line in (run_folder / "test-scorings.jsonl").read_text().splitlines()]
    assert [(line["split"], line["step"], line["threshold"]["source"]) for line in lines] == [
        ("test", 20, "val"),
        ("test", 20, "val"),
        ("test", 10, "fixed"),
    ]
    assert lines[2]["headline"]["name"] == "gt_known"
    assert lines[2]["headline"]["threshold_source"] == "fixed"
    assert lines[2]["date"].endswith("+00:00")


def test_no_file_is_written_for_an_image_unless_maps_are_asked_for(run_folder, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    few = ["--evaluate.cases-best", "1", "--evaluate.cases-worst", "1"]
    before = set(run_folder.rglob("*"))
    assert main(["evaluate", str(run_folder), "--split", "val,test", *few]) == 0
    wanted = {"eval", "metrics-evaluate.jsonl", "test-scorings.jsonl"}
    for split in ("val", "test"):
        name = f"{split}-step-00000020"
        pictures = [case["picture"] for case in read_record(run_folder, name)["cases"]]
        assert 2 <= len(pictures) <= 4  # of 9 and of 17 images
        wanted |= {f"eval/{one}" for one in (name, f"{name}.json", f"{name}.parquet", *pictures)}
    written = set(run_folder.rglob("*")) - before
    assert {str(path.relative_to(run_folder)) for path in written} == wanted
    assert not list((tmp_path / "temporary").iterdir())


def test_a_threshold_and_overrides_can_be_given(run_folder, shards, tmp_path):
    arguments = ["evaluate", str(run_folder), "--threshold", "0.30", "--out", str(tmp_path / "elsewhere")]
    assert main([*arguments, "--evaluate.size-px", "24"]) == 0
    found = read_record(tmp_path / "elsewhere", "test-step-00000020")
    assert (found["threshold"]["value"], found["size_px"]) == (0.3, 24)
    assert not (run_folder / "eval").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "0.5x"], "allowed: val, oracle, fixed or a number"),
        (["--threshold", "1"], "must be in [0, 1)"),
        (["--threshold", "val"], "was not scored at step 20"),
        (["--split", "tset"], "did you mean 'test'"),
        (["--step", "15"], "has no checkpoint 15; it has 10, 20"),
        (["--procs", "0"], "--procs: given 0; allowed: 1 or more"),
        (["--index", "nowhere"], "no such folder of shards"),
        (["--init", "nowhere.safetensors"], "neither a weight file nor a run folder"),
    ],
)
def test_mistakes_are_one_line_and_code_2(run_folder, arguments, message, capsys):
    assert main(["evaluate", str(run_folder), *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1


def test_a_run_of_another_class_count_and_other_folders_are_refused(run_folder, tmp_path, shards, capsys):
    other = from_dict(RECIPE | {"data": {"index": str(shards), "num_classes": 7}}, origin="test")
    (run_folder / "config.yaml").write_text(dump(other))
    assert main(["evaluate", str(run_folder)]) == 2
    assert "is for 7 classes, the shards" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "no run folder" in capsys.readouterr().err
    assert main(["evaluate", "molt-imagnet"]) == 2
    assert "did you mean 'molt-imagenet'" in capsys.readouterr().err


def save_colours(path: Path, *, scale: float = 1.0, classes=tuple("abcdef")) -> Path:
    state = {name: value * scale for name, value in Colour(ColourConfig(), 6).state_dict().items()}
    metadata = {"method": f"{__name__}:Colour", "classes": json.dumps(list(classes))}
    checkpoint.save_weights(path, state, metadata=metadata)
    return path


@pytest.fixture
def val_scored(tmp_path, shards):
    """Arguments of an evaluation whose folder has val scored with the weights `a`."""
    config = from_dict(RECIPE | {"data": {"index": str(shards)}}, origin="test")
    (tmp_path / "toy.yaml").write_text(dump(config))
    for name, scale in (("a", 1.0), ("b", 0.7)):
        save_colours(tmp_path / f"{name}.safetensors", scale=scale)
    start = ["evaluate", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "x")]
    assert main([*start, "--init", str(tmp_path / "a.safetensors"), "--split", "val"]) == 0
    return start


def test_the_same_weights_under_another_name_get_the_threshold_of_val(val_scored, tmp_path):
    same = tmp_path / "same.safetensors"
    same.write_bytes((tmp_path / "a.safetensors").read_bytes())
    # The curve to choose by is applied to what is stored, and the number of images a pass changes no number.
    knobs = ["--evaluate.select", "top1_loc", "--evaluate.batch-size", "3"]
    assert main([*val_scored, "--init", str(same), *knobs]) == 0
    assert read_record(tmp_path / "x", "test-step-00000000")["threshold"]["source"] == "val"


@pytest.mark.parametrize(
    ("weights", "knobs", "message"),
    [
        ("b", [], "weights sha256 "),
        ("a", ["--method.blur-px", "5"], "method.blur_px 3 there, 5 here"),
        ("a", ["--evaluate.size-px", "24"], "evaluate.size_px 32 there, 24 here"),
        ("a", ["--evaluate.strict-gt-known"], "evaluate.strict_gt_known False there, True here"),
        ("a", ["--index", "OTHER"], "index sha256 "),
        (None, [], "there, none here"),
    ],
    ids=["weights", "method", "size", "strict", "index", "no init"],
)
def test_a_val_threshold_of_something_else_is_not_used(
    val_scored, tmp_path, shards, capsys, weights, knobs, message
):
    init = ["--init", str(tmp_path / f"{weights}.safetensors")] if weights else []
    if "OTHER" in knobs:
        other = tmp_path / "other"
        options = PackOptions(out=other, workers=1, samples_per_shard=5, seed=1)
        pack(make_plan("rectangles", Rectangles(), ColourConfig(), options), Rectangles(), options)
        knobs = ["--index", str(other)]
    before = sorted((tmp_path / "x" / "eval").iterdir())
    assert main([*val_scored, *init, *knobs, "--threshold", "val"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "--split val,test without --threshold" in said
    assert len(said.splitlines()) == 1
    assert main([*val_scored, *init, *knobs]) == 2
    assert message in capsys.readouterr().err
    assert sorted((tmp_path / "x" / "eval").iterdir()) == before
    assert main([*val_scored, *init, *knobs, "--threshold", "fixed"]) == 0
    found = read_record(tmp_path / "x", "test-step-00000000")
    assert (found["threshold"]["source"], found["threshold"]["value"]) == ("fixed", 0.12)
    assert found["index"]["name"] == ("other" if "--index" in knobs else shards.name)


def test_a_record_that_does_not_say_what_was_scored_gives_no_threshold(val_scored, tmp_path, capsys):
    path = tmp_path / "x" / "eval" / "val-step-00000000.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "weights"}))
    arguments = [*val_scored, "--init", str(tmp_path / "a.safetensors"), "--threshold", "val"]
    assert main(arguments) == 2
    assert "does not say what was scored" in capsys.readouterr().err


def test_a_val_split_without_boxes_chooses_nothing_which_is_said_before_anything_is_scored(tmp_path, capsys):
    class NoBoxesInVal(Rectangles):
        def read(self, item):
            sample = super().read(item)
            return dataclasses.replace(sample, boxes_xyxy=None) if item.split == "val" else sample

    options = PackOptions(out=tmp_path / "shards", workers=1)
    pack(make_plan("r", NoBoxesInVal(), ColourConfig(), options), NoBoxesInVal(), options)
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(dump(from_dict(RECIPE | {"data": {"index": str(options.out)}}, origin="test")))
    arguments = ["evaluate", str(recipe), "--split", "val,test", "--out", str(tmp_path / "x")]
    assert main(arguments) == 2
    assert "split 'val' has no boxes to choose a threshold by; say --threshold" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert main([*arguments, "--threshold", "fixed"]) == 0
    assert read_record(tmp_path / "x", "test-step-00000000")["threshold"]["source"] == "fixed"


class Random(Colour):
    def __init__(self, config, num_classes):
        super().__init__(config, num_classes)
        self.colour_C3 = torch.nn.Parameter(torch.rand(num_classes, 3))


def test_tensors_that_no_file_gives_follow_the_seed(tmp_path, shards):
    def weights(seed):
        recipe = RECIPE | {
            "method": {"name": f"{__name__}:Random"},
            "data": {"index": str(shards)},
            "seed": seed,
        }
        config = from_dict(recipe, origin="test")
        work = scoring.Work(
            config=config,
            identity=identify(config, str(shards), weights=None, whole=False),
            index=str(shards),
            splits=("test",),
            weights=None,
            whole=False,
            step=0,
            checkpoint="",
            threshold=None,
            folder=tmp_path,
        )
        return work.identity, scoring.load_method(work, Ranks())[0].colour_C3

    (one, first), (same, again), (other, third) = weights(0), weights(0), weights(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, third)
    assert one.differences(same.to_json()) == []
    assert one.differences(other.to_json()) == ["seed 1 there, 0 here"]


def test_weight_files_that_the_recipe_names_belong_to_what_was_scored(tmp_path, shards):
    recipe = RECIPE | {"method": {"name": "ts_cam", "backbone": {"checkpoint": str(tmp_path / "w.pth")}}}

    def identity():
        return identify(from_dict(recipe, origin="test"), str(shards), weights=None, whole=False)

    (tmp_path / "w.pth").write_bytes(b"one")
    before = identity()
    (tmp_path / "w.pth").write_bytes(b"two")
    (difference,) = identity().differences(before.to_json())
    assert difference.startswith("files.backbone.checkpoint sha256 ")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("abdcef", "class 2 is 'd' there and 'c' in the shards"),
        ("abcdeg", "class 5 is 'g' there and 'f' in the shards"),
        ("abcde", "is for 5 classes"),
    ],
)
def test_weights_of_other_classes_are_refused(val_scored, tmp_path, capsys, classes, message):
    weights = save_colours(tmp_path / "other.safetensors", classes=classes)
    assert main([*val_scored, "--init", str(weights)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert str(weights) in said


def test_classes_that_are_only_numbered_have_no_names_to_compare(val_scored, tmp_path):
    weights = save_colours(tmp_path / "n.safetensors", classes="012345")
    assert main([*val_scored, "--init", str(weights), "--threshold", "oracle"]) == 0


def test_class_names_that_cannot_be_read_are_one_line(val_scored, tmp_path, capsys):
    path = tmp_path / "damaged.safetensors"
    metadata = {"method": f"{__name__}:Colour", "classes": "[1,"}
    checkpoint.save_weights(path, Colour(ColourConfig(), 6).state_dict(), metadata=metadata)
    assert main([*val_scored, "--init", str(path)]) == 2
    assert "no list of classes" in capsys.readouterr().err
