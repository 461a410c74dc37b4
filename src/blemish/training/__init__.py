"""Training: one trainer, its checkpoints, the sources of patches, and the choice of device and precision."""

# First of all: lightning imports torchvision where that is installed.
from blemish.layers import torchvision_operators as torchvision_operators
