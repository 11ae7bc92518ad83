"""Operations on arrays: no parameters, no state."""

from cnn_jax.ops.activation import RELU_RULES, relu
from cnn_jax.ops.adaptive import adaptive_avg_pool, adaptive_max_pool, spatial_pyramid_pool
from cnn_jax.ops.boxes import (
    BACKGROUND,
    IGNORED,
    balanced_sample,
    base_anchors,
    box_area,
    box_iou,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    grid_anchors,
    is_at_least,
    match_boxes,
    nms,
)
from cnn_jax.ops.convolution import conv, flip, true_conv
from cnn_jax.ops.convolution_gradients import conv_filter_gradient, conv_input_gradient
from cnn_jax.ops.geometry import (
    Cost,
    Padding,
    ReceptiveField,
    Window,
    conv_cost,
    filter_sizes,
    input_sizes,
    output_size,
    padding_pairs,
    paddings,
    receptive_fields,
    strides,
    unused_pixels,
)
from cnn_jax.ops.local import local_conv, tiled_conv
from cnn_jax.ops.looped_convolution import inside_loop
from cnn_jax.ops.maxout import maxout
from cnn_jax.ops.normalization import (
    batch_moments,
    local_response_norm,
    normalize,
    pointwise,
    pointwise_moments,
    slope_and_shift,
)
from cnn_jax.ops.pooling import (
    avg_pool,
    gaussian_pool,
    gaussian_weights,
    global_avg_pool,
    l2_pool,
    max_pool,
)
from cnn_jax.ops.portable import portable
from cnn_jax.ops.roi import (
    paste_masks,
    pyramid_level,
    pyramid_roi_align,
    roi_align,
    roi_pool,
)
from cnn_jax.ops.separable import depthwise_conv, separable_conv
from cnn_jax.ops.transposed import conv_transpose, transpose_kernel
from cnn_jax.ops.unpooling import max_pool_with_argmax, max_unpool

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "RELU_RULES",
    "Cost",
    "Padding",
    "ReceptiveField",
    "Window",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "balanced_sample",
    "base_anchors",
    "batch_moments",
    "box_area",
    "box_iou",
    "clip_boxes",
    "conv",
    "conv_cost",
    "conv_filter_gradient",
    "conv_input_gradient",
    "conv_transpose",
    "decode_boxes",
    "depthwise_conv",
    "encode_boxes",
    "filter_sizes",
    "flip",
    "gaussian_pool",
    "gaussian_weights",
    "global_avg_pool",
    "grid_anchors",
    "input_sizes",
    "inside_loop",
    "is_at_least",
    "l2_pool",
    "local_conv",
    "local_response_norm",
    "match_boxes",
    "max_pool",
    "max_pool_with_argmax",
    "max_unpool",
    "maxout",
    "nms",
    "normalize",
    "output_size",
    "padding_pairs",
    "paddings",
    "paste_masks",
    "pointwise",
    "pointwise_moments",
    "portable",
    "pyramid_level",
    "pyramid_roi_align",
    "receptive_fields",
    "relu",
    "roi_align",
    "roi_pool",
    "separable_conv",
    "slope_and_shift",
    "spatial_pyramid_pool",
    "strides",
    "tiled_conv",
    "transpose_kernel",
    "true_conv",
    "unused_pixels",
]
