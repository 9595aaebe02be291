"""The sources as `pack` finds them."""

import pytest

from wsol_dist.data import sources
from wsol_dist.errors import UserError

NAMES = {
    "caltech-101", "cars", "coco", "coco-json", "collage", "cub", "flowers", "folder", "imagenet", "openimages",
    "pets", "tiny-imagenet", "voc",
}  # fmt: skip


def test_sources_are_found_by_file_name():
    assert set(sources.source_names()) >= NAMES
    for name in sources.source_names():
        module = sources.source_module(name)
        assert hasattr(module, "Options")
        assert hasattr(module, "Source")
        assert sources.summary(name)


def test_an_unknown_source_is_named_with_a_suggestion():
    with pytest.raises(UserError, match="did you mean 'collage'"):
        sources.source_module("colage")
