"""What commands do alike with their flags."""

from __future__ import annotations

import pytest

from wsol_dist.options import names_of


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
def test_names_joined_by_commas(text, names):
    assert names_of(text) == names
