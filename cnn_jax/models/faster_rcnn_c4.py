"""Faster R-CNN on one map: the last stage of a residual network is the head of every region.

He et al. 2015, "Deep residual learning for image recognition", appendix A: regions are cut from the
map of the fourth group of layers ("conv4", here stage 3), whose stride is 16, and the fifth runs on
each of them. Numbers as in faster_rcnn.
"""

from functools import partial

from flax.core import Scope
from jaxtyping import Array, Float

from cnn_jax.layers import Layer, chain, global_avg_pool, with_flags
from cnn_jax.models import fast_rcnn, faster_rcnn, fpn, resnet
from cnn_jax.models.faster_rcnn import Settings, detector


def last_stage(
    scope: Scope,
    regions: Float[Array, "n k s s c"],
    features: int,
    *,
    block: Layer = resnet.bottleneck_block,
    blocks: int = 3,
    number: int = 4,
    frozen_norms: bool = True,
) -> Float[Array, "n k c2"]:
    """Return the means of what a stage of blocks makes of each region, at half its size.

    Args:
      features: channels of the 3x3 convolutions.
      number: of the stage, for its name.
    """

    def stage(scope: Scope, x: Array) -> Array:
        bodies = {
            f"stage{number}_block{i}": partial(block, features=features, stride=2 if i == 1 else 1)
            for i in range(1, blocks + 1)
        }
        x = chain(scope, x, bodies)
        return scope.child(global_avg_pool, "pool")(x)

    if frozen_norms:
        stage = with_flags(stage, frozen_norms=True)
    n, k = regions.shape[:2]
    return stage(scope, regions.reshape(n * k, *regions.shape[2:])).reshape(n, k, -1)


def torchvision_name(path: str) -> str:
    """Return the module where torchvision's FasterRCNN has `layer4` in its box_head."""
    part, _, rest = path.partition("/")
    if part == "box_head":
        return f"roi_heads.box_head.{resnet.torchvision_name(rest)}"
    return faster_rcnn.torchvision_name(path)


C4 = Settings(
    backbone=fpn.resnet_map,
    lowest_level=4,
    region_maps=1,
    anchor_sizes=((32, 64, 128, 256, 512),),
    region_size=14,
    head=last_stage,
    head_features=512,
)

# For images of 128 pixels the map is that of stage 2, of stride 8, and stage 3 is the head.
SMALL = faster_rcnn.SMALL._replace(
    backbone=fast_rcnn.SMALL.backbone,
    lowest_level=3,
    region_maps=1,
    anchor_sizes=((10, 14, 20, 28, 40, 56, 80, 112),),
    region_size=14,
    head=partial(last_stage, block=resnet.basic_block, blocks=2, number=3, frozen_norms=False),
    head_features=128,
)

MODELS = {
    "fasterrcnn_resnet50_c4": detector(C4)._replace(published_name=torchvision_name),
    "fasterrcnn_resnet14_c3": detector(SMALL, image_size=128, num_classes=9),
}
