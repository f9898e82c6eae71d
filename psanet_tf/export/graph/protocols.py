"""From an export's metadata to what labels images in its graph, as inference/protocols.py does it for a network."""

from psanet_tf.export.graph.labeler import GraphLabeler, Network
from psanet_tf.export.graph.mmseg import GraphMMSeg
from psanet_tf.export.graph.whole import GraphWhole
from psanet_tf.export.graph.window import GraphWindow
from psanet_tf.models import PSANet
from psanet_tf.runtimes.metadata import ModelMetadata


def build_graph_labeler(predict: Network, network: PSANet, metadata: ModelMetadata) -> GraphLabeler:
    """The labeler of the signature predict_bytes.

    Args:
        predict: normalized images float32 [B, h, w, C] -> logits float32 [B, h, w, K].
        network: `PSANet` that `predict` was made of.
        metadata: `ModelMetadata`, which says how images are labelled.
    """
    if metadata.protocol == "mmseg":
        return GraphMMSeg(
            predict,
            metadata.num_classes,
            metadata.scale,
            network.get_config()["align_corners"],
            metadata.crop_size,
            metadata.stride,
            metadata.scales,
            metadata.flip,
            metadata.images,
        )
    if metadata.mode == "whole":
        return GraphWhole(
            predict,
            metadata.num_classes,
            pads_images(network),
            metadata.base_size,
            metadata.scales,
            metadata.flip,
            metadata.images,
            metadata.max_seen_pixels,
        )
    return GraphWindow(
        predict,
        metadata.num_classes,
        metadata.crop_size,
        metadata.base_size,
        metadata.scales,
        metadata.flip,
        metadata.stride_rate,
        metadata.images,
    )


def pads_images(network: PSANet) -> bool:
    """Whether images in one piece are padded to 8n+1 rows and columns, where features and pixels align."""
    return network.variant == "semseg"
