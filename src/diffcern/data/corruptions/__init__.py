"""The common corruptions of ImageNet-C and CIFAR-10-C: natural shifts of an image at five severities."""

from .catalogue import COMMON, CORRUPTIONS, EXTRA, Corruption, corrupt, imagenet_c_view

__all__ = ["COMMON", "CORRUPTIONS", "EXTRA", "Corruption", "corrupt", "imagenet_c_view"]
