"""The playground: a page in which a visitor's browser trains a convolutional network."""
