"""Data sets, the input pipeline and augmentation."""
