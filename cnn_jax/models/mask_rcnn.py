"""Mask R-CNN: Faster R-CNN with a third head, which draws a mask in each box.

He et al. 2017, "Mask R-CNN".
"""

from cnn_jax.models.faster_rcnn import Settings, detector, published_backbone

MODELS = {
    "maskrcnn_resnet50_fpn": detector(Settings(backbone=published_backbone, mask_layers=4)),
}
