"""TFDS builders that prepare data sets without TensorFlow."""
