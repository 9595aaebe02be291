"""What the knobs of every method share. Free of torch, as every recipe is read with it: a method keeps its own knobs
in such a module, too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GivenData:
    """What a method may want to know of the shards before a job waits."""

    classes: tuple[str, ...]
    multi_label: bool
    """Some image has several labels."""
    embedded: str | None = None
    """What the embeddings of `data.embeddings` are of, `image` or `caption`; None without them."""
    embedding_dim: int | None = None


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What every method's knobs share. A method derives its own `Config` from it, beside itself."""

    def recipe_problem(self, *, order: str, num_before: int) -> str | None:
        """What of the rest of the recipe does not go with this method and how to mend it; None where all does.

        Args:
            order: `data.order`.
            num_before: how many runs come first and hand their weights over (`before`).
        """
        return f"before: this method trains in one stage, {num_before} given" if num_before else None

    @property
    def takes_multi_label(self) -> bool:
        """Whether `forward` takes several labels an image."""
        return False

    @property
    def takes_targets(self) -> bool:
        """Whether `forward` wants a label map of each image (`data.targets`) as a third argument."""
        return False

    def data_problem(self, data: GivenData) -> str | None:
        """What of the shards and the columns beside them does not go with this method; None where all does.

        Raises:
            UserError: the same, where a file says it better.
        """
        return None if data.embedded is None else "data.embeddings: this method has no use for embeddings"

    def classifier_files(self) -> tuple[str, ...]:
        """Weight files that must have been trained on the very classes of the shards."""
        return ()
