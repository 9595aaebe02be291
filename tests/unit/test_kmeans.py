"""k-means of many images at once: each image's own, near what faiss makes of it alone."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from tests.unit.cluster_images import some_images
from wsol_dist.errors import UserError
from wsol_dist.regions import kmeans
from wsol_dist.regions.kmeans import KMeans, KMeansConfig
from wsol_dist.regions.nearest import nearest
from wsol_dist.validation import validated

CONFIG = KMeansConfig(size_px=48, clusters=8)


def features(backend: KMeans, images: np.ndarray) -> np.ndarray:
    return backend.features(np.stack([backend.prepare(image) for image in images]))


def inertia(point_nd: np.ndarray, label_n: np.ndarray) -> float:
    groups = [point_nd[label_n == label] for label in np.unique(label_n)]
    return float(sum(((group - group.mean(axis=0)) ** 2).sum() for group in groups))


def test_a_block_of_images_gives_each_what_it_gets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    images, backend = some_images(5, 48), KMeans(CONFIG)
    alone = backend(images, seeds=range(5))
    monkeypatch.setattr(kmeans, "CPU_BLOCK", 5)
    together = backend(images, seeds=range(5))
    # Rounding may send a pixel between two centres elsewhere.
    assert np.mean(alone == together) > 0.99
    assert len({label_HW.tobytes() for label_HW in together}) == 5


def test_inertia_is_within_two_percent_of_faiss_on_all_pixels() -> None:
    backend = KMeans(CONFIG)
    feature_Bnd = features(backend, some_images(8, 48))
    ours = [
        inertia(f, label)
        for f, label in zip(feature_Bnd, backend.cluster(feature_Bnd, range(8)), strict=True)
    ]
    theirs = []
    for seed, feature_nd in enumerate(feature_Bnd):
        peer = faiss.Kmeans(feature_nd.shape[1], 8, niter=20, seed=seed + 1, max_points_per_centroid=10**6)
        peer.train(feature_nd)
        theirs.append(inertia(feature_nd, peer.index.search(feature_nd, 1)[1][:, 0]))
    assert np.mean(ours) < 1.02 * np.mean(theirs)


@pytest.mark.parametrize(
    ("dims", "centres", "points"), [(5, 16, 50_176), (21, 3, 1025), (1, 256, 7), (5, 1, 512)]
)
def test_nearest_centres_are_those_that_faiss_finds(dims: int, centres: int, points: int) -> None:
    rng = np.random.default_rng(points)
    point_Nd, centre_Kd = (rng.integers(-8, 9, (n, dims)).astype(np.float32) for n in (points, centres))
    label_N = np.full(points, -1)
    nearest(*(np.ascontiguousarray(one.T) for one in (point_Nd, centre_Kd)), label_N)
    index = faiss.IndexFlatL2(dims)
    index.add(centre_Kd)
    least_N1, theirs_N1 = index.search(point_Nd, 1)
    np.testing.assert_array_equal(((point_Nd - centre_Kd[label_N]) ** 2).sum(axis=1), least_N1[:, 0])
    all_NK = ((point_Nd[:, None] - centre_Kd) ** 2).sum(axis=2)
    np.testing.assert_array_equal(label_N, all_NK.argmin(axis=1))  # the first of equals
    assert (label_N == theirs_N1[:, 0]).mean() > 0.5


def test_where_numba_does_not_work_faiss_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    images = some_images(2, 48)
    ours = KMeans(CONFIG)(images, seeds=(0, 1))
    asked: list[str] = []
    monkeypatch.setattr(kmeans, "load", asked.append)  # None, as where numba does not work
    # Rounding may send a pixel between two centres elsewhere.
    assert np.mean(ours == KMeans(CONFIG)(images, seeds=(0, 1))) > 0.99
    assert set(asked) == {"wsol_dist.regions.nearest"}


def test_the_same_seed_gives_the_same_labels_and_another_one_others() -> None:
    images, backend = some_images(2, 48), KMeans(CONFIG)
    first = backend(images, seeds=(0, 1))
    np.testing.assert_array_equal(first, KMeans(CONFIG)(images, seeds=(0, 1)))
    np.testing.assert_array_equal(first[1:], backend(images[1:], seeds=(1,)))
    assert (first != backend(images, seeds=(2, 3))).any()


def test_patch_embeddings_move_the_borders() -> None:
    images = np.full((1, 48, 48, 3), 90, np.uint8)
    backend = KMeans(KMeansConfig(size_px=48, clusters=2, position=0.0, embedding=1.0))
    embedding_1Dhw = torch.zeros(1, 20, 4, 4)
    embedding_1Dhw[:, :10, :, :2] = 1
    embedding_1Dhw[:, 10:, :, 2:] = 1
    prepared = [backend.prepare(images[0])]
    label_HW = backend.label(images, prepared, seeds=(0,), embedding_BDhw=embedding_1Dhw)[0]
    assert len(np.unique(label_HW[:, :18])) == len(np.unique(label_HW[:, 30:])) == 1
    assert label_HW[0, 0] != label_HW[0, -1]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"clusters": 257}, "clusters: given 257; allowed: 1 to 256"),
        ({"clusters": 0}, "clusters: given 0; allowed: 1 to 256"),
        ({"color": -1}, "color: given -1; allowed: 0 or more"),
        (
            {"color": 0, "position": 0, "embedding": 0},
            "one of color, position and embedding must be above 0",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(knobs: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        validated(KMeansConfig, knobs)
