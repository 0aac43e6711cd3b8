#!/usr/bin/env bash
# timm 1.0.31: without its classifier a model answers with head_hidden_size features, which for many is not num_features.
#
# create_model(name, num_classes=0) is how features are had, and num_features is what other libraries read for their width (a linear
# probe's first dimension, an index's). A MobileNet v3 says 288 and gives 1,024, an EfficientViT 128 and 1,280, a VGG 512 and 4,096: a layer
# between pooling and classifier stays when the classifier goes. Whoever sizes a layer by num_features finds out at the first batch;
# ResNets, EfficientNets and plain ViTs, which people try first, have both the same. A forward pass, or head_hidden_size, tells.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.14.1" "torchvision" "timm==1.0.31"
python - <<'PYTHON'
import timm
import torch

print("torch", torch.__version__, "timm", timm.__version__)
SAME = ("resnet18", "efficientnet_b0", "vit_tiny_patch16_224")
OTHER = {
    "mobilenetv3_small_050": (288, 1024),
    "ghostnet_100": (960, 1280),
    "efficientvit_b0": (128, 1280),
    "hgnetv2_b0": (1024, 2048),
    "vgg11": (512, 4096),
}
for name in (*SAME, *OTHER):
    model = timm.create_model(name, num_classes=0).eval()
    with torch.no_grad():
        width = model(torch.zeros(1, 3, 224, 224)).shape[1]
    print(f"{name:24} num_features {model.num_features:5}   head_hidden_size {model.head_hidden_size:5}   gives {width:5}")
    assert width == model.head_hidden_size
    assert (model.num_features, width) == OTHER.get(name, (width, width)), "the finding no longer holds"
print("still so")
PYTHON
