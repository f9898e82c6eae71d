"""Losses over the pixels of all replicas that carry a label."""

from psanet_tf.losses.cross_entropy import SegmentationLoss
from psanet_tf.losses.dice import DiceLoss
from psanet_tf.losses.focal import FocalLoss
from psanet_tf.losses.lovasz import LovaszSoftmaxLoss
from psanet_tf.losses.weighted_sum import WeightedSum

__all__ = ["DiceLoss", "FocalLoss", "LovaszSoftmaxLoss", "SegmentationLoss", "WeightedSum"]
