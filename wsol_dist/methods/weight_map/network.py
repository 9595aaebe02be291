"""The weight map (Shaharabany and Wolf, "Learning a weight map for weakly-supervised localization").

A network g weights the pixels of an image so that a frozen network f still sees in the weighted image what it saw in
the whole one. Variant `classifier` (method I): f's class probabilities stay. Variant `siamese` (method II): f's
embedding stays, and the weighted images of a class come together.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsol_dist.errors import UserError
from wsol_dist.methods.base import Classes, Localization, Method, top_class
from wsol_dist.methods.weight_map.config import WeightMapConfig
from wsol_dist.models.backbones import build_cnn, download_state
from wsol_dist.models.config import CNNConfig
from wsol_dist.models.stems import build_timm, keep_bn_eval
from wsol_dist.models.unet import UNet
from wsol_dist.models.weights import State, downloads_wanted, load_checked, read_state, wanted

POSITIVE, NEGATIVE = 1, 2
"""In fours of a class-pairs order (a a b b), the position of an image's positive and negative by exclusive or."""


class WeightMap(Method):
    """g, the network that weights pixels, over a frozen f."""

    Config = WeightMapConfig
    class_agnostic = True

    def __init__(self, config: WeightMapConfig, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.image_px, self.mean, self.std = config.image_px, config.mean, config.std
        self.classifier: Any = None
        self.embedder: Any = None
        self.g: UNet | None = None
        if config.stage == "f":
            self.embedder = _trained_embedder(config)
            return
        self.classifier = _frozen(config.classifier, num_classes, knob="classifier")
        if config.variant == "siamese":
            self.embedder = _frozen(config.embedder, config.embedding_dim, knob="embedder")
        self.g = UNet(
            config.encoder, wwbl=config.wwbl, inner_relu=config.inner_relu, out_stride=config.out_stride
        )
        self.train()

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        if self.config.variant == "classifier":
            return self._classifier_loss(image_BCHW, label_B)
        _assert_fours(label_B)
        return (
            self._embedding_loss(image_BCHW) if self.config.stage == "f" else self._siamese_loss(image_BCHW)
        )

    def weights(self, image_BCHW: Tensor) -> Tensor:
        """M = g(I): (B, 1, H, W) in 0..1."""
        assert self.g is not None
        return self.g(image_BCHW).sigmoid()

    def localize(self, image_BCHW: Tensor, class_BK: Classes = None) -> Localization:
        if self.g is None or self.classifier is None:
            raise UserError(
                "method.stage: f has no map, there is nothing to score before g is trained; train f with "
                "`wsol train`, which queues no evaluator"
            )
        with self.evaluating():
            prob_BC = self.classifier(image_BCHW).float().softmax(dim=1)
            class_BK = top_class(prob_BC, class_BK)
            map_B1HW = self.weights(image_BCHW).float()
        # One map an image, whatever the class.
        return Localization(
            prob_BC=prob_BC, class_BK=class_BK, map_BKhw=map_B1HW.repeat(1, class_BK.shape[1], 1, 1)
        )

    def train(self, mode: bool = True) -> WeightMap:
        """Training mode for what this stage trains; a frozen network stays in eval mode."""
        super().train(mode)
        for network in (self.classifier, self.embedder):
            if network is not None and self.config.stage == "g":
                network.eval()
        if self.config.bn_eval:
            keep_bn_eval(self)
        return self

    def lr_scales(self) -> dict[str, float]:
        if self.g is None or self.config.out_lr == 1:
            return {}
        own = {id(one) for one in self.g.out_norm.parameters()}
        return {name: self.config.out_lr for name, one in self.named_parameters() if id(one) in own}

    def trained_keys(self) -> set[str]:
        trained = "g." if self.config.stage == "g" else "embedder."
        return {name for name in self.state_dict() if name.startswith(trained)}

    def load_before(self, state: State, *, source: str) -> None:
        if self.config.stage == "f":
            raise UserError(f"before: stage f comes first, {source} cannot come before it")
        if any(name.startswith("embedder.") for name in state):
            if self.embedder is None:
                raise UserError(f"before: {source} trained an embedding, method.variant classifier has none")
            _load_whole(self.embedder, state, source=source, knob="embedder", arch=self.config.embedder.arch)
        else:
            arch = self.config.classifier.arch
            _load_whole(self.classifier, state, source=source, knob="classifier", arch=arch)

    @classmethod
    def tiny_config(cls) -> WeightMapConfig:
        # Batch statistics would make the loss depend on the number of ranks. See CAM.tiny_config for the encoder.
        tiny = CNNConfig(arch="resnet10t", model_kwargs={"zero_init_last": False})
        return WeightMapConfig(image_px=32, classifier=tiny, embedder=tiny, encoder=tiny, bn_eval=True)

    def _classifier_loss(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        """Equation 1: soft cross entropy between f's outputs, and R."""
        assert self.classifier is not None
        map_B1HW = self.weights(image_BCHW)
        with torch.no_grad():
            target_BC = self.classifier(image_BCHW).softmax(dim=1)
        logit_BC = self.classifier(image_BCHW * map_B1HW)
        same = F.cross_entropy(logit_BC, target_BC)
        size = map_B1HW.abs().mean()
        kept = (logit_BC.detach().argmax(dim=1) == target_BC.argmax(dim=1)).float().mean()
        right = (target_BC.argmax(dim=1) == label_B).float().mean()
        loss = same + self.config.regulariser * size
        return {
            "loss": loss,
            "same": same,
            "mean_map": size.detach(),
            "class_kept": kept,
            "accuracy_f": right,
        }

    def _siamese_loss(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Equations 3 and 4, and R; every image is an anchor once."""
        assert self.embedder is not None
        map_B1HW = self.weights(image_BCHW)
        front_BD = self.embedder(image_BCHW * map_B1HW)
        size = map_B1HW.abs().mean()
        losses = {"mean_map": size.detach()}
        total = self.config.regulariser * size
        if self.config.inner:
            with torch.no_grad():
                whole_BD = self.embedder(image_BCHW)
            back_BD = self.embedder(image_BCHW * (1 - map_B1HW))
            losses["inner"] = self._triplet(whole_BD, front_BD, back_BD)
            total = total + losses["inner"]
        if self.config.outer:
            losses["outer"] = self._triplet_of_fours(front_BD)
            total = total + losses["outer"]
        return {"loss": total, **losses}

    def _embedding_loss(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Equation 2, every image an anchor once."""
        assert self.embedder is not None
        embedding_BD = self.embedder(image_BCHW)
        place = torch.arange(len(embedding_BD), device=embedding_BD.device)
        detached_BD = embedding_BD.detach()
        to_positive = (detached_BD - detached_BD[place ^ POSITIVE]).norm(dim=1)
        to_negative = (detached_BD - detached_BD[place ^ NEGATIVE]).norm(dim=1)
        ordered = (to_positive < to_negative).float().mean()
        return {"loss": self._triplet_of_fours(embedding_BD), "ordered": ordered}

    def _triplet_of_fours(self, embedding_BD: Tensor) -> Tensor:
        place = torch.arange(len(embedding_BD), device=embedding_BD.device)
        return self._triplet(embedding_BD, embedding_BD[place ^ POSITIVE], embedding_BD[place ^ NEGATIVE])

    def _triplet(self, anchor_BD: Tensor, positive_BD: Tensor, negative_BD: Tensor) -> Tensor:
        """max(|a - p| - |a - n| + margin, 0) with plain L2 norms, mean over the batch."""
        return F.triplet_margin_loss(anchor_BD, positive_BD, negative_BD, margin=self.config.margin)


def _assert_fours(label_B: Tensor) -> None:
    """What data.order class_pairs promises: each four images are two of a class, then two of another."""
    assert len(label_B) % 4 == 0, f"{len(label_B)} images are no fours"
    place = torch.arange(len(label_B), device=label_B.device)
    assert bool((label_B == label_B[place ^ POSITIVE]).all()), "an image has no positive beside it"
    assert bool((label_B != label_B[place ^ NEGATIVE]).all()), "an image has no negative in its four"


def _trained_embedder(config: WeightMapConfig) -> Any:
    """The siamese f before its training: its features may start from a classifier's, the projection is new."""
    net = config.embedder
    return build_cnn(
        net.arch,
        net.model_kwargs,
        num_classes=config.embedding_dim,
        checkpoint=net.checkpoint,
        pretrained=net.pretrained,
        bn_checkpoint=net.bn_checkpoint,
    )


def _frozen(net: CNNConfig, num_outputs: int, *, knob: str) -> Any:
    """A network that is only looked through: every tensor from its file, no gradient, eval mode."""
    network = build_timm(net.arch, dict(net.model_kwargs), num_classes=num_outputs)
    if wanted(net.checkpoint):
        source = f"method.{knob}.checkpoint {net.checkpoint}"
        _load_whole(network, read_state(str(net.checkpoint)), source=source, knob=knob, arch=net.arch)
    elif downloads_wanted(net.pretrained):
        source = f"timm's weights of {net.arch}"
        _load_whole(network, download_state(net.arch), source=source, knob=knob, arch=net.arch)
    if wanted(net.bn_checkpoint):
        source = f"method.{knob}.bn_checkpoint {net.bn_checkpoint}"
        load_checked(network, read_state(str(net.bn_checkpoint)), source=source, partial=True)
    return network.requires_grad_(False).eval()


def _load_whole(network: Any, state: State, *, source: str, knob: str, arch: str) -> None:
    """A whole network from timm's format, a checkpoint of `cam`, or one of stage f.

    Raises:
        UserError: another class count, another architecture, or no such network in the file.
    """
    own = network.state_dict()
    state = {name.removeprefix("model.").removeprefix("embedder."): value for name, value in state.items()}
    head = f"{network.default_cfg['classifier']}.weight"
    if set(state) == set(own) and len(state[head]) != len(own[head]):
        what = "outputs (method.embedding_dim)" if knob == "embedder" else "classes"
        where = "the recipe" if knob == "embedder" else "the shards"
        raise UserError(
            f"{source}: has {len(state[head])} {what}, {where} {len(own[head])}; give the {knob} that was trained "
            f"on these {where.removeprefix('the ')}"
        )
    try:
        load_checked(network, state, source=source)
    except UserError as error:
        raise UserError(f"{error}; method.{knob}.arch is {arch!r}: name the file's own") from error
