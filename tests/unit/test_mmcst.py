"""MMCST: tokens, pooling, losses, switches and maps; class-name embeddings from tables and from open_clip."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.unit.test_multi_label import pack
from wsol_dist.cli import main
from wsol_dist.data.shards.columns import Column
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import evaluation_batches
from wsol_dist.errors import UserError
from wsol_dist.methods.config import GivenData
from wsol_dist.methods.mmcst.config import MMCSTConfig
from wsol_dist.methods.mmcst.context_loss import contrastive_loss, l1_loss
from wsol_dist.methods.mmcst.network import MMCST, gwrp
from wsol_dist.methods.multiscale import localize_views, view_sides
from wsol_dist.models.attention import run_blocks_with_inputs, spread_by_attention
from wsol_dist.models.clip import text_embeddings
from wsol_dist.models.config import CLIPConfig, TextConfig
from wsol_dist.validation import validated

NUM_CLASSES = 5
NAMES = ("cat", "cup", "coin", "space_shuttle", "rocket")
PLAIN = dataclasses.replace(MMCST.tiny_config(), scales=(1.0,), flip=False)


def build(**more) -> MMCST:
    torch.manual_seed(0)
    return MMCST(dataclasses.replace(PLAIN, **more), NUM_CLASSES)


def images(num: int = 3, px: int = 32) -> torch.Tensor:
    return torch.randn(num, 3, px, px, generator=torch.Generator().manual_seed(1))


MULTI_HOT = torch.tensor([[1.0, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 1, 1, 0, 1]])


def maps(method: MMCST) -> torch.Tensor:
    return method.localize(images(), torch.tensor([[0, 3], [2, 2], [1, 4]])).map_BKhw


# Tokens and losses


def test_class_scores_come_from_before_any_final_norm_and_train():
    method = build()
    assert not [name for name in method.state_dict() if name.startswith("backbone.vit.norm.")]
    loss = method(images(), MULTI_HOT)["loss_cls"]
    # A final norm leaves a mean of 0 over the width: every score 0, and nothing to learn from.
    assert abs(loss.item() - math.log(2)) > 1e-3
    loss.backward()
    assert method.class_token_CD.grad.abs().max() > 1e-4
    assert method.backbone.vit.blocks[0].attn.qkv.weight.grad.abs().max() > 1e-6


def test_gwrp_between_maximum_and_mean():
    score = torch.tensor([[[1.0, 4.0, 2.0]]])
    assert gwrp(score, 0.0).item() == 4
    assert gwrp(score, 1.0).item() == pytest.approx(7 / 3)
    assert gwrp(score, 0.5).item() == pytest.approx((4 + 0.5 * 2 + 0.25 * 1) / 1.75)


def test_multi_hot_of_one_class_is_the_class_number():
    method = build().eval()
    label_B = torch.tensor([0, 4, 2])
    by_number = method(images(), label_B)
    by_ones = method(images(), F.one_hot(label_B, NUM_CLASSES).float())
    assert all(torch.equal(by_number[name], by_ones[name]) for name in by_number)
    assert {"loss_cls", "loss_t2p", "loss_c2p"} < set(by_number)


def test_the_loss_is_the_sum_of_its_parts_with_unit_weights():
    method = build(context_target="image", context_dim=7).eval()
    out = method(images(), MULTI_HOT, torch.randn(3, 7))
    parts = [value for name, value in out.items() if name.startswith("loss_")]
    assert len(parts) == 4
    torch.testing.assert_close(out["loss"], torch.stack(parts).sum())


@pytest.mark.parametrize("context_loss", ["l1", "ce"])
def test_the_context_loss_reaches_text_tokens_and_falls(context_loss):
    method = build(context_target="image", context_dim=7, context_loss=context_loss).train()
    target = torch.randn(3, 7, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    values = []
    for step in range(12):
        out = method(images(), MULTI_HOT, target)
        optimizer.zero_grad()
        out["loss_context"].backward()
        if step == 0:
            assert method.text_CE.grad.abs().sum() > 0
            assert method.context_out.weight.grad.abs().sum() > 0
        optimizer.step()
        values.append(out["loss_context"].item())
    assert values[-1] < 0.8 * values[0]


def test_contrast_is_the_cross_entropy_against_the_identity():
    generator = torch.Generator().manual_seed(3)
    context, target = (F.normalize(torch.randn(6, 4, generator=generator), dim=1) for _ in range(2))
    logit = context @ target.T / 0.07
    one_way = F.cross_entropy(logit, torch.arange(6))
    other_way = F.cross_entropy(logit.T, torch.arange(6))
    found = contrastive_loss(context, target, temperature=0.07)
    torch.testing.assert_close(found, (one_way + other_way) / 2)
    found = contrastive_loss(context, target, temperature=0.07, both_ways=False)
    torch.testing.assert_close(found, one_way)
    torch.testing.assert_close(l1_loss(context, target), (context - target).abs().sum() / 6)


def test_contrast_survives_a_small_temperature():
    context = F.normalize(torch.randn(6, 4), dim=1).requires_grad_()
    loss = contrastive_loss(context, -context.detach(), temperature=1e-3)
    loss.backward()
    assert loss.isfinite()
    assert context.grad.isfinite().all()


@pytest.mark.parametrize(
    ("tokens", "uses_global", "uses_local"),
    [
        ("visual", True, False),
        ("global", True, False),
        ("local", False, True),
        ("global_local", True, True),
    ],
)
def test_which_tokens_correlate_with_the_patches(tokens, uses_global, uses_local):
    method = build(tokens=tokens).eval()
    token_BMD, _ = method._run(images(), keep=False)
    found = method._correlations(token_BMD)
    patch_BDN = token_BMD[:, method._num_prefix :].transpose(1, 2)
    wanted = uses_global * method.class_token_CD + uses_local * token_BMD[:, :NUM_CLASSES]
    torch.testing.assert_close(found["c2p"], wanted @ patch_BDN)
    assert ("t2p" in found) == (tokens != "visual")
    if tokens != "visual":
        local = token_BMD[:, NUM_CLASSES : 2 * NUM_CLASSES]
        wanted = uses_global * method.text_in(method.text_CE) + uses_local * local
        torch.testing.assert_close(found["t2p"], wanted @ patch_BDN)


def test_visual_tokens_bring_no_text_and_every_class_starts_alike():
    method = build(tokens="visual")
    assert not [name for name in method.state_dict() if "text" in name]
    token_D = method.backbone.vit.cls_token[0, 0] + method.backbone.vit.pos_embed[0, 0]
    assert torch.equal(method.class_token_CD, token_D.expand(NUM_CLASSES, -1))
    method.train()
    method(images(), MULTI_HOT)["loss"].backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


# Text tokens of some classes only


def test_text_tokens_of_a_few_classes_keep_the_sequence_short():
    method = build(text_top=2).eval()
    first = method._first_pass(images())
    assert first.shape == (3, NUM_CLASSES)
    chosen = method._chosen(first, MULTI_HOT > 0)
    assert chosen.shape == (3, 2)
    own = [set(row.nonzero()[:, 0].tolist()) for row in MULTI_HOT]
    taken = [set(row.tolist()) for row in chosen]
    assert own[0] <= taken[0], "own classes come first"
    assert own[1] <= taken[1]
    assert taken[2] <= own[2], "more own classes than tokens"
    assert taken[1] - own[1] <= set(first[1].topk(2).indices.tolist()), "then the highest"
    token, _ = method._run(images(), chosen, keep=False)
    assert token.shape[1] == NUM_CLASSES + 2 + 16
    found = method._correlations(token, chosen)
    assert {name: value.shape[1] for name, value in found.items()} == {"c2p": NUM_CLASSES, "t2p": 2}
    out = method(images(), MULTI_HOT)
    assert out["text_found"] <= 1
    parts = [value for name, value in out.items() if name.startswith("loss_")]
    assert len(parts) == 4
    torch.testing.assert_close(out["loss"], torch.stack(parts).sum())


def test_probabilities_do_not_know_which_classes_were_asked_for():
    method = build(text_top=2).eval()
    asked = method.localize(images(), torch.tensor([[0], [3], [1]]))
    unasked = method.localize(images())
    assert torch.equal(asked.prob_BC, unasked.prob_BC)
    assert torch.equal(unasked.class_BK[:, 0], unasked.prob_BC.argmax(dim=1))


def test_the_text_map_is_the_wanted_class_whatever_its_place():
    method = build(text_top=3, maps="t2p", affinity=False).eval()
    wanted = torch.tensor([[3, 0], [2, 4], [1, 3]])
    found, turned = (method.localize(images(), one).map_BKhw for one in (wanted, wanted.flip(1)))
    torch.testing.assert_close(found, turned.flip(1))
    assert not torch.allclose(found[:, 0], found[:, 1])


def test_text_of_all_classes_is_no_choice_at_all():
    whole = build(text_top=NUM_CLASSES)
    assert "text_found" not in whole(images(), MULTI_HOT)
    assert "text_found" in build(text_top=2)(images(), MULTI_HOT)
    assert torch.equal(maps(whole), maps(build()))
    with pytest.raises(UserError, match="text_top: given 0; allowed: 1 or more"):
        validated(MMCSTConfig, {"text_top": 0})
    with pytest.raises(ValueError, match="text_top"):
        build(text_top=2, tokens="visual")


# Maps


@pytest.mark.parametrize(
    "switch",
    [
        {"tokens": "visual"},
        {"tokens": "global"},
        {"tokens": "local"},
        {"text_local": 0.5},
        {"class_local": 0.5},
        {"maps": "t2p"},
        {"maps": "c2p"},
        {"combine": "product"},
        {"affinity": False},
        {"text_top": 2},
        {"scales": (1.0, 0.75)},
        {"flip": True},
    ],
    ids=str,
)
def test_every_switch_changes_the_map(switch):
    plain, other = build(), build(**switch)
    state = {name: value for name, value in plain.state_dict().items() if name in other.state_dict()}
    other.load_state_dict(state)
    assert not torch.allclose(maps(plain), maps(other), atol=1e-4)


def trained_maps(context_target: str, context_loss: str = "ce", target_BE: torch.Tensor | None = None):
    """Behind a few steps of what differs in nothing but the context."""
    method = build(context_target=context_target, context_loss=context_loss, context_dim=7).train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        method(images(), MULTI_HOT, target_BE)["loss"].backward()
        optimizer.step()
    return maps(method)


def test_what_the_context_learns_from_and_how_changes_the_map():
    generator = torch.Generator().manual_seed(2)
    image_BE, caption_BE = (torch.randn(3, 7, generator=generator) for _ in range(2))
    found = {"none": trained_maps("none")}
    for loss in ("l1", "ce"):
        found[f"image {loss}"] = trained_maps("image", loss, image_BE)
        found[f"caption {loss}"] = trained_maps("caption", loss, caption_BE)
    assert torch.equal(found["none"], trained_maps("none")), "the steps themselves repeat"
    for one, other in itertools.combinations(found, 2):
        assert not torch.allclose(found[one], found[other], atol=1e-4), (one, other)


def test_affinity_is_attention_between_patches_times_the_map():
    method = build().eval()
    value_BKN = torch.rand(3, 40, 16)  # more maps than a head is wide
    prefix = 2 * NUM_CLASSES
    with torch.no_grad():
        patch = method.backbone.vit(images())[:, 1:]
        token = torch.cat([method.class_token_CD, method.text_in(method.text_CE)]).expand(3, -1, -1)
        last, inputs = run_blocks_with_inputs(method.backbone.vit.blocks, torch.cat([token, patch], dim=1))
        found = spread_by_attention(method.backbone.vit.blocks, inputs, value_BKN, num_prefix=prefix)
        wanted = torch.zeros_like(value_BKN)
        for block, entered in zip(method.backbone.vit.blocks, inputs, strict=True):
            attn = block.attn
            q, k, _ = attn.qkv(block.norm1(entered)).reshape(3, -1, 3, 2, 16).permute(2, 0, 3, 1, 4)
            whole = (q @ k.transpose(-2, -1) * attn.scale).softmax(dim=-1).mean(dim=1)
            wanted += (whole[:, prefix:, prefix:] @ value_BKN.transpose(1, 2)).transpose(1, 2)
        assert torch.equal(last, method.backbone.vit.blocks(inputs[0]))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_a_mirrored_image_with_flip_gives_the_mirrored_map():
    method = build(flip=True)
    wanted = torch.tensor([[0], [1], [2]])
    straight = method.localize(images(), wanted).map_BKhw
    mirrored = method.localize(images().flip(-1), wanted).map_BKhw
    torch.testing.assert_close(mirrored.flip(-1), straight, atol=1e-5, rtol=1e-4)


def test_views_are_summed_on_the_largest_grid():
    from wsol_dist.methods.cam.network import CAM

    torch.manual_seed(0)
    cam = CAM(CAM.tiny_config(), 4).eval()
    image, wanted = images(2, 64), torch.tensor([[1], [3]])
    found = localize_views(cam.localize, image, wanted, sides_px=[64, 128], flip=False).map_BKhw
    small = cam.localize(image, wanted).map_BKhw
    large_image = F.interpolate(image, size=(128, 128), mode="bilinear", antialias=True)
    large = cam.localize(large_image, wanted).map_BKhw
    torch.testing.assert_close(found, large + F.interpolate(small, size=(4, 4), mode="bilinear"))
    assert view_sides(224, scales=(1.0, 0.75, 1.25, 0.001), stride_px=16) == [224, 160, 288, 16]


def test_it_starts_from_a_plain_transformer_and_from_another_image_size():
    import timm

    arch = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "num_heads": 2, "depth": 2, "num_classes": 0}
    plain = timm.create_model("deit_small_patch16_224", **arch)
    backbone = dataclasses.replace(PLAIN.backbone, stem=None, patch_px=8)
    method = build(backbone=backbone)
    unused = method.load_init(plain.state_dict())
    assert sorted(unused) == ["not used: norm.bias", "not used: norm.weight"]
    token_D = plain.cls_token[0, 0] + plain.pos_embed[0, 0]
    torch.testing.assert_close(method.class_token_CD[3], token_D)
    large = build(image_px=64)
    assert large.load_init(build().state_dict()) == []


def test_text_of_a_few_of_many_classes_costs_a_few_tokens():
    num_classes, few, num_patches = 100, 6, 16
    torch.manual_seed(0)
    method = MMCST(dataclasses.replace(PLAIN, text_top=few), num_classes)
    lengths: list[int] = []
    method.backbone.vit.blocks[0].register_forward_pre_hook(
        lambda _, given: lengths.append(given[0].shape[1])
    )
    method(images(), F.one_hot(torch.tensor([7, 99, 0]), num_classes).float())
    method.localize(images(), torch.tensor([[7], [99], [0]]))
    assert set(lengths) == {num_classes + num_patches, num_classes + few + num_patches}


# What class names mean


@pytest.fixture
def table(tmp_path: Path) -> dict[str, str]:
    names = ["Rocket", "Coin", "cat", "space shuttle", "dog", "Coffee cup"]
    np.save(tmp_path / "text.npy", np.random.default_rng(0).normal(size=(6, 16)).astype(np.float16))
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    return {"embeddings": str(tmp_path / "text.npy"), "names": str(tmp_path / "names.txt")}


def text_config(table: dict[str, str], **more) -> TextConfig:
    return TextConfig(**{"source": "file", "dim": 16, "aliases": {"cup": "coffee cup"}} | table | more)


def test_rows_are_found_by_name_whatever_their_order(table):
    rows = np.load(table["embeddings"]).astype(np.float32)
    found = text_embeddings(text_config(table), NAMES)
    torch.testing.assert_close(found, F.normalize(torch.from_numpy(rows[[2, 5, 1, 3, 0]]), dim=1))
    method = build(text=text_config(table))
    method.take_class_names(NAMES)
    assert torch.equal(method.text_CE.data, found)


def test_a_resumed_run_needs_no_table(table):
    from wsol_dist.models.weights import without_checkpoints

    method, other = build(text=text_config(table)), build(text=text_config(table))
    method.take_class_names(NAMES)
    Path(table["embeddings"]).unlink()
    with pytest.raises(UserError, match=r"no file .*text\.npy"):
        other.take_class_names(NAMES)
    with without_checkpoints():
        resumed = build(text=text_config(table))
        resumed.take_class_names(NAMES)
    assert not torch.equal(resumed.text_CE, method.text_CE)
    assert resumed.load_init(method.state_dict()) == []
    assert torch.equal(resumed.text_CE, method.text_CE)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"aliases": {}}, "no 'cup', the name of a class"),
        ({"dim": 512}, "embeddings of .* are 16 wide; set --method.text.dim 16"),
        ({"names": "/nowhere.txt"}, "no file /nowhere.txt"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table, more, words):
    with pytest.raises(UserError, match=words):
        text_embeddings(text_config(table, **more), NAMES)


def test_of_a_large_table_the_nearest_names_are_told(tmp_path):
    np.save(tmp_path / "t.npy", np.ones((300, 16), np.float16))
    names = [f"name {number}" for number in range(299)]
    (tmp_path / "t.txt").write_text("\n".join([*names, "coffee cup"]))
    table = {"embeddings": str(tmp_path / "t.npy"), "names": str(tmp_path / "t.txt")}
    with pytest.raises(UserError, match="allowed are 300 names, the nearest: coffee cup, ") as mistake:
        text_embeddings(text_config(table, aliases={}), ["coffee"])
    assert len(str(mistake.value)) < 400


def test_a_damaged_table_is_refused(table):
    Path(table["names"]).write_text("cat\ncup\n")
    with pytest.raises(UserError, match=r"2 lines, .* 6 rows"):
        text_embeddings(text_config(table), NAMES)
    Path(table["embeddings"]).write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(UserError, match=r"no \.npy array"):
        text_embeddings(text_config(table), NAMES)


def test_a_name_with_two_meanings_is_refused_and_an_equal_repetition_is_not(table):
    lines = ["cat", "cat", "cup", "coin", "space shuttle", "rocket"]
    Path(table["names"]).write_text("\n".join(lines))
    with pytest.raises(UserError, match="'cat' twice"):
        text_embeddings(text_config(table, aliases={}), NAMES)
    rows = np.load(table["embeddings"])
    rows[1] = rows[0]
    np.save(table["embeddings"], rows)
    assert text_embeddings(text_config(table, aliases={}), NAMES).shape == (5, 16)


def test_real_table_by_coco_names(real_data):
    names = (real_data / "text/coco_names.txt").read_text().splitlines()
    files = {
        "embeddings": str(real_data / "text/clip_vit_b32_coco.npy"),
        "names": str(real_data / "text/coco_names.txt"),
    }
    found = text_embeddings(TextConfig(source="file", **files), names[::-1])
    rows = torch.from_numpy(np.load(files["embeddings"]).astype(np.float32))
    torch.testing.assert_close(found.flip(0), F.normalize(rows, dim=1))


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a CLIP that is small enough for a test, saved as open_clip reads them."""
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    (folder / "tiny-clip.json").write_text(
        json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text})
    )
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-clip", pretrained=None).state_dict(), folder / "clip.pt")
    return folder / "clip.pt"


def test_open_clip_from_a_file_gives_the_mean_of_normalised_prompts(clip_file):
    from wsol_dist.models.clip import load_clip

    clip = CLIPConfig(model="tiny-clip", pretrained=str(clip_file))
    config = TextConfig(
        source="open_clip", dim=24, clip=clip, templates=("a {}", "a photo of a {}"), aliases={"cup": "mug"}
    )
    found = text_embeddings(config, ["cat", "cup"])
    loaded = load_clip(clip)
    prompts = loaded.texts(["a mug", "a photo of a mug"])
    torch.testing.assert_close(found[1], F.normalize(prompts.mean(dim=0), dim=0))
    torch.testing.assert_close(prompts.norm(dim=1), torch.ones(2))
    assert loaded.image_px == 32
    assert loaded.images(images(2)).shape == (2, 24)


def test_images_and_captions_are_embedded_through_open_clip(clip_file, tmp_path):
    from wsol_dist.models.clip import load_clip

    shards, given = pack(tmp_path / "shards"), ["tiny-clip", str(clip_file)]
    common = ["embed", "--index", str(shards), "--workers", "0", "--split", "val"]
    knobs = ["--clip.model", given[0], "--clip.pretrained", given[1]]
    assert main([*common, "--out", str(tmp_path / "image"), *knobs]) == 0
    knobs = ["--what", "caption", "--text.clip.model", given[0], "--text.clip.pretrained", given[1]]
    assert main([*common, "--out", str(tmp_path / "caption"), *knobs]) == 0
    index = Index.load(shards)
    image, caption = (Column.open(tmp_path / name, index) for name in ("image", "caption"))
    assert image.about.settings["encoder"].startswith("open_clip tiny-clip clip.pt (sha256 ")
    clip = load_clip(CLIPConfig(model=given[0], pretrained=given[1]))
    (batch,) = evaluation_batches(
        index, split="val", rank=0, world=1, batch_size=3, workers=0, image_px=32, positions=range(3)
    )
    mean, std = (torch.tensor(value)[:, None, None] for value in (clip.mean, clip.std))
    wanted = clip.images((batch.image_BCHW / 255 - mean) / std).numpy()
    for row in range(3):
        np.testing.assert_allclose(image.value("val", row), wanted[row], atol=1e-5)
        names = [index.classes[label] for label in index.rows("val").labels(row)]
        prompt = f"a photo of a {', '.join(names[:-1])} and {names[-1]}"
        np.testing.assert_allclose(caption.value("val", row), clip.texts([prompt])[0].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (CLIPConfig(model="ViT-B-33"), "open_clip has no 'ViT-B-33'"),
        (CLIPConfig(pretrained="openia"), "'openia' is neither a file nor a tag of ViT-B-32; tags: openai"),
    ],
)
def test_a_clip_that_there_is_not_is_refused(clip, words):
    from wsol_dist.models.clip import load_clip

    with pytest.raises(UserError, match=words):
        load_clip(clip)


def test_a_tag_that_cannot_be_had_says_which_file_to_bring(monkeypatch):
    import open_clip

    from wsol_dist.models.clip import load_clip

    def offline(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(UserError, match=r"unreachable; bring .* along and name it in clip.pretrained"):
        load_clip(CLIPConfig(pretrained="laion2b_s34b_b79k"))


# What does not go together


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tokens": "visual", "context_target": "image"}, "visual has no text"),
        ({"tokens": "visual", "maps": "t2p"}, "visual has no text"),
        ({"gwrp_decay": 1.5}, "gwrp_decay: given 1.5; allowed: 0 to 1"),
        ({"scales": ()}, "method.scales: none given; give at least one"),
        ({"scales": (1.0, 0.0)}, "scales.1: given 0.0; allowed: above 0"),
        ({"temperature": 0.0}, "temperature: given 0.0; allowed: above 0"),
    ],
)
def test_knobs_that_cannot_be(more, words):
    with pytest.raises(UserError, match=words):
        validated(MMCSTConfig, more)


@pytest.mark.parametrize(
    ("target", "given", "words"),
    [
        ("image", {}, "these are not given"),
        ("image", {"embedded": "caption", "embedding_dim": 512}, "these are of captions"),
        ("image", {"embedded": "image", "embedding_dim": 1280}, "set --method.context-dim 1280"),
        ("none", {"embedded": "image", "embedding_dim": 512}, "no use for it"),
        ("image", {"embedded": "image", "embedding_dim": 512}, None),
        ("none", {}, None),
    ],
)
def test_embeddings_and_the_context_target_must_agree(target, given, words):
    config = MMCSTConfig(context_target=target)
    problem = config.data_problem(GivenData(classes=NAMES, multi_label=True, **given))
    assert (problem is None) if words is None else (words in str(problem))
