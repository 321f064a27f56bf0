"""Towers of torchvision with random weights, and what they make of random images: to hold the image encoders against.

    python3 pipelines/torch/towers.py OUT [--small]

For each kind OUT/KIND.pth has the weights, OUT/KIND.safetensors the images `x` (less than 0 and more than 1 among them; of a network over
volumes grey ones, the slices in the place of the channels) and the embeddings `y` before the classifier. Running statistics are those of a
few steps, so that they are not the initial ones. With --small the towers are far narrower, and the weights of densenet121 are in
densenet121-weights.safetensors instead. Needs torch, torchvision and safetensors.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torchvision.models import DenseNet, convnext_tiny, densenet121, resnet
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.video import r3d_18, resnet as video


class Narrow(ResNet):
    """A ResNet whose first stage has `width` channels; torchvision's are all of 64."""

    def __init__(self, block, layers, width):
        super().__init__(block, layers)
        self.inplanes = width
        self.conv1 = torch.nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        for stage, blocks in enumerate(layers):
            setattr(self, f"layer{stage + 1}", self._make_layer(block, width << stage, blocks, stride=1 if stage == 0 else 2))
        self.fc = torch.nn.Linear(width * 8 * block.expansion, 5)


class NarrowVideo(video.VideoResNet):
    """An R3D-18 whose first stage has `width` channels."""

    def __init__(self, width):
        super().__init__(video.BasicBlock, [video.Conv3DSimple] * 4, [2, 2, 2, 2], video.BasicStem, num_classes=5)
        self.inplanes = width
        conv = torch.nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.stem = torch.nn.Sequential(conv, torch.nn.BatchNorm3d(width), torch.nn.ReLU())
        for stage in range(4):
            layer = self._make_layer(video.BasicBlock, video.Conv3DSimple, width << stage, 2, stride=1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", layer)
        self.fc = torch.nn.Linear(8 * width, 5)


SLICES = 5
SMALL = {
    "resnet18": lambda: Narrow(BasicBlock, [2, 2, 2, 2], 4),
    "resnet50": lambda: Narrow(Bottleneck, [3, 4, 6, 3], 2),
    "densenet121": lambda: DenseNet(2, (6, 12, 24, 16), 4, num_classes=5),
    "convnext-tiny": lambda: ConvNeXt([CNBlockConfig(4 << k, 8 << k if k < 3 else None, n) for k, n in enumerate([3, 3, 9, 3])], num_classes=5),
    "resnet18-3d": lambda: NarrowVideo(2),
}
FULL = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "densenet121": densenet121,
    "convnext-tiny": convnext_tiny,
    "resnet18-3d": r3d_18,
}


def embedding(model, x):
    if isinstance(model, ConvNeXt):
        model.classifier[2] = torch.nn.Identity()
        return model(x)
    for name in ("fc", "classifier"):
        if hasattr(model, name):
            setattr(model, name, torch.nn.Identity())
    return model(x)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    side = 40 if arguments.small else 224
    for kind, make in (SMALL if arguments.small else FULL).items():
        torch.manual_seed(0)
        model = make().train()
        volumes = isinstance(model, video.VideoResNet)
        with torch.no_grad():
            for _ in range(3):
                model(torch.randn(8, 3, *[SLICES] * volumes, side, side))
            # Of ConvNeXt what blocks add is multiplied with 1e-6 at first, and would be lost among rounding; biases are all 0 and
            # weights of norms all 1, and would fit under each other's names.
            for name, parameter in model.named_parameters() if isinstance(model, ConvNeXt) else ():
                if name.endswith("layer_scale") or (parameter.dim() == 1 and name.endswith("weight")):
                    parameter.uniform_(0.5, 1.5)
                elif parameter.dim() == 1:
                    parameter.normal_(0, 0.2)
            model.eval()
            if arguments.small and kind == "densenet121":
                save_file(model.state_dict(), arguments.out / f"{kind}-weights.safetensors")
            else:
                torch.save(model.state_dict(), arguments.out / f"{kind}.pth")
            x = torch.randn(2, SLICES if volumes else 3, side, side)
            y = embedding(model, x[:, None].expand(2, 3, SLICES, side, side) if volumes else x)
            # The same of a grey image, whose channels are alike; of a volume a single slice.
            grey = torch.randn(2, 1, side, side)
            y_grey = model(grey[:, None].expand(2, 3, 1, side, side) if volumes else grey.expand(2, 3, side, side))
        tensors = {"x": x, "y": y, "grey": grey, "y_grey": y_grey}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, arguments.out / f"{kind}.safetensors")


if __name__ == "__main__":
    main()
