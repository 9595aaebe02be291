"""A trained method as one graph that needs nothing else: pixels in, class scores and heat maps out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsol_dist.config.evaluate import Normalise
from wsol_dist.errors import UserError
from wsol_dist.methods.base import Method

INPUT, OUTPUTS = "images", ("scores", "classes", "maps")
OPSET = 18
"""The first that resizes with antialiasing, which the image pyramid needs."""
EXAMPLE_BATCH = 2
"""A batch of one would be taken for a constant."""


class Deployed(nn.Module):
    """Normalises, localizes the `top_k` most probable classes, and makes heat maps of their scores.

    `images` (B, S, S, 3) uint8 RGB with S = `image_px`, the whole image squashed to the square. Gives `scores` (B, C)
    float32 class probabilities, `classes` (B, K) int64 the most probable first, and `maps` (B, K, P, P) float32 in
    0..1 with P = `size_px`: bilinearly enlarged, then normalised as the scores' protocol does.
    """

    scale_C11: Tensor
    shift_C11: Tensor

    def __init__(self, method: Method, *, top_k: int, size_px: int, normalise: Normalise) -> None:
        super().__init__()
        self.method, self.top_k, self.size_px, self.normalise = method, top_k, size_px, normalise
        self.image_px = method.image_px
        self.register_buffer(
            "scale_C11", 1 / (255 * torch.tensor(method.std)[:, None, None]), persistent=False
        )
        shift = torch.tensor(method.mean) / torch.tensor(method.std)
        self.register_buffer("shift_C11", shift[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image_BCHW = images.permute(0, 3, 1, 2).float() * self.scale_C11 - self.shift_C11
        found = self.method.localize(image_BCHW, self.top_k)
        map_BKPP = F.interpolate(
            found.map_BKhw.float(), size=(self.size_px, self.size_px), mode="bilinear", align_corners=False
        )
        return found.prob_BC.float(), found.class_BK, self._unit(map_BKPP)

    def example(self, batch: int = EXAMPLE_BATCH) -> Tensor:
        """Images of noise, (batch, S, S, 3) uint8, the same each time."""
        generator = torch.Generator().manual_seed(0)
        shape = (batch, self.image_px, self.image_px, 3)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    def _unit(self, map_BKPP: Tensor) -> Tensor:
        """0..1, a constant map 0."""
        high = map_BKPP.amax(dim=(2, 3), keepdim=True)
        if self.normalise == "max":
            positive = torch.where(high > 0, high, torch.ones_like(high))
            return (map_BKPP / positive).clamp(min=0) * (high > 0)
        low = map_BKPP.amin(dim=(2, 3), keepdim=True)
        span = high - low
        return (map_BKPP - low) / torch.where(span > 0, span, torch.ones_like(span))


def to_program(deployed: Deployed) -> torch.export.ExportedProgram:
    """`torch.export` with a free batch size.

    Raises:
        UserError: this method, with these knobs, cannot be traced.
    """
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad():
            return torch.export.export(
                deployed, (deployed.example(),), dynamic_shapes={"images": {0: batch}}, strict=False
            )
    except Exception as error:  # whatever the tracer stumbles over
        raise cannot_export(deployed, "torch.export", error) from error


def save_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """As `.pt2`, which `torch.export.load` reads."""
    torch.export.save(program, path)


def save_onnx(deployed: Deployed, program: torch.export.ExportedProgram, path: Path) -> None:
    """As one ONNX file, its weights inside, and its inputs and outputs described.

    Raises:
        UserError: an operation of this method has no ONNX counterpart.
    """
    import onnx

    try:
        made: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            verbose=False,
        )
        model = made.model_proto
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise cannot_export(deployed, "ONNX", error) from error
    model.doc_string = " ".join(str(Deployed.__doc__).split())
    onnx.save(model, path)


def cannot_export(deployed: Deployed, what: str, error: Exception) -> UserError:
    """One line on a method that does not become a graph."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return UserError(
        f"{what}: the method {type(deployed.method).__name__} with these knobs cannot be exported ({reason[:200]}); "
        "--formats none writes weights, configuration and card only"
    )
