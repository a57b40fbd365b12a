"""The embedded example: a small residual network trained on Fashion-MNIST, with calibration and test images."""
