"""A network with every kind of layer that the playground's page knows."""

from cnn_jax import layers


def network(scope, images, num_classes):
    """Return the logits."""
    x = scope.child(layers.conv, "conv1")(images, 6, size=5, stride=2)
    x = scope.child(layers.batch_norm, "bn1")(x)
    x = scope.child(layers.gelu, "gelu")(x)
    x = scope.child(layers.max_pool, "pool1")(x, 3, 1)
    x = scope.child(layers.conv, "conv2")(x, 8, size=2)
    x = scope.child(layers.sigmoid, "sigmoid")(x)
    x = scope.child(layers.avg_pool, "pool2")(x, 2)
    x = scope.child(layers.conv, "conv3")(x, 12, size=1, bias=False)
    x = scope.child(layers.relu, "relu")(x)
    x = scope.child(layers.flatten, "flatten")(x)
    x = scope.child(layers.dense, "fc")(x, 20)
    return scope.child(layers.dense, "head")(x, num_classes)
