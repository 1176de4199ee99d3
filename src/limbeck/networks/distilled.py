"""A distillation token and its head for a vision transformer that has none (DeiT)."""

from __future__ import annotations

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from limbeck.errors import Mistake


class Distilled(nn.Module):
    """A vision transformer of timm with one token more: it goes through all blocks and has a linear head of its own.

    The token stands before the patches', behind the class token and registers; its embedding holds its position too.
    The logits are the mean of both heads', in training as in evaluation; `logits.class` and `logits.distillation` are
    where one head alone is tapped. Other parameters and their names stay the transformer's, under `vit.`

    Args:
        vit: A `VisionTransformer` of timm without such a token, trained or not.

    Raises:
        Mistake: If it is none.

    Source: Touvron et al., Training data-efficient image transformers & distillation through attention, ICML 2021,
    arXiv:2012.12877; drawn as there. With a class token and its position's embedding added to the token, this is timm's
    `VisionTransformerDistilled`.
    """

    def __init__(self, vit: nn.Module):
        super().__init__()
        if not isinstance(vit, VisionTransformer) or isinstance(vit, VisionTransformerDistilled):
            raise Mistake(f"a distillation token is given to a vision transformer of timm that has none; got "
                          f"{type(vit).__name__}. Choose for example timm:vit_tiny_patch16_224, or a network that has "
                          f"one: timm:deit_tiny_distilled_patch16_224.")
        self.vit = vit
        like = next(vit.parameters())
        self.token = nn.Parameter(torch.zeros(1, 1, vit.embed_dim, device=like.device, dtype=like.dtype))
        self.head = nn.Linear(vit.embed_dim, vit.num_classes, device=like.device, dtype=like.dtype)
        for weight in (self.token, self.head.weight):
            nn.init.trunc_normal_(weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        vit, before = self.vit, self.vit.num_prefix_tokens
        x = vit._pos_embed(vit.patch_embed(x))
        x = torch.cat([x[:, :before], self.token.expand(x.shape[0], -1, -1), x[:, before:]], dim=1)
        x = vit.norm(vit.blocks(vit.norm_pre(vit.patch_drop(x))))
        own: Tensor = vit.forward_head(torch.cat([x[:, :before], x[:, before + 1:]], dim=1))
        return (own + self.head(x[:, before])) / 2
