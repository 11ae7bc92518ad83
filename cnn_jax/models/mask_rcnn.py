"""Mask R-CNN: Faster R-CNN with a third head, which draws a mask in each box.

He et al. 2017, "Mask R-CNN".
"""

from cnn_jax.models.faster_rcnn import SMALL, Settings, detector, published_backbone

MODELS = {
    "maskrcnn_resnet50_fpn": detector(Settings(backbone=published_backbone, mask_layers=4)),
    "maskrcnn_resnet10_fpn": detector(
        SMALL._replace(mask_layers=2, mask_features=64, mask_size=7), image_size=128, num_classes=9
    ),
}
