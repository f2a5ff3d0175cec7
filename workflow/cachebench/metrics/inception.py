"""FID's Inception-v3 (the TensorFlow graph of 2015-12-05) as torch-fidelity builds it, with sFID's spatial features beside."""

import io

import torch
from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3

STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
MIXED = tuple(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e"))
AFTER_768 = ("Mixed_7a", "Mixed_7b", "Mixed_7c", "fc")


class Inception(FeatureExtractorInceptionV3):
    """uint8 [n, 1 or 3, H, W] -> features [n, 2048] (pool3), logits [n, 1008] without bias, spatial [n, 2023] float16.

    The weights are torch-fidelity's (weights-inception-2015-12-05-6726825d.pth). Spatial features are the first 7 channels of
    `mixed_6/conv` on its 17x17 places, flattened as ADM's evaluator does (places, then channels). In float16 they are half
    of what a setting stores, and rounding moves an image by 1e-4 of its length."""

    batch = 16

    def __init__(self, layers=("2048", "logits_unbiased")):
        nothing = io.BytesIO()
        torch.save({}, nothing)  # the constructor unpickles a file without care: it is given an empty one
        nothing.seek(0)
        super().__init__("inception-2015", list(layers), feature_extractor_weights_path=nothing)
        self.spatial = None
        self.Mixed_6d.branch1x1.register_forward_hook(self.keep_spatial)

    def load_state_dict(self, tensors):
        if tensors:
            super().load_state_dict(tensors)

    def keep_spatial(self, module, inputs, output):
        self.spatial = output[:, :7].permute(0, 2, 3, 1).flatten(1).half()

    def forward(self, images):
        outputs = super().forward(images.expand(-1, 3, -1, -1))
        return dict(zip(("features", "logits"), outputs, strict=True)) | {"spatial": self.spatial}


class PartialInception(Inception):
    """The same network up to 768 channels, from convolutions with their batch norm folded in: no logits.

    uint8 [n, 1 or 3, H, W] -> features [n, 64, 192 or 768], spatial [n, 2023]. Tensors are `<layer>.weight` (OIHW) and
    `<layer>.bias` under the names of the graph."""

    def __init__(self, features=768):
        super().__init__(dict.fromkeys([str(features), "768"]))  # the last one, so that spatial features are reached
        for name in AFTER_768:
            delattr(self, name)

    def load_state_dict(self, tensors):
        for name, layer in self.named_modules() if tensors else ():
            if isinstance(layer, BasicConv2d):
                layer.conv.weight.copy_(tensors[f"{graph_name(name)}.weight"])
                layer.bn.bias.copy_(tensors[f"{graph_name(name)}.bias"])
                layer.bn.running_var.fill_(1 - layer.bn.eps)  # what is left of the norm is its bias

    def forward(self, images):
        outputs = FeatureExtractorInceptionV3.forward(self, images.expand(-1, 3, -1, -1))
        return {"features": outputs[0], "spatial": self.spatial}


def graph_name(layer):
    """The name in the graph of torch-fidelity's layer: "Mixed_6d.branch7x7dbl_3" is mixed_6_tower_1_conv_2."""
    block, _, branch = layer.partition(".")
    if not branch:
        return numbered("conv", STEM.index(block))
    prefix = numbered("mixed", MIXED.index(block))
    if branch in ("branch1x1", "branch3x3"):
        return f"{prefix}_conv"
    if branch == "branch_pool":
        return f"{prefix}_tower_2_conv"
    tower = "tower_1" if "dbl" in branch and block != "Mixed_6a" else "tower"  # that block has one tower only
    return numbered(f"{prefix}_{tower}_conv", int(branch[-1]) - 1)


def numbered(name, i):
    return f"{name}_{i}" if i else name
