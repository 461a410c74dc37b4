"""One training loop, its checkpoints, and the choice of device and precision."""

# First of all: lightning imports torchvision where that is installed.
from blemish.layers import torchvision_operators as torchvision_operators  # isort: skip
from blemish.training.checkpoint import STATE_FILE
from blemish.training.loop import DivergedError, Progress, train
from blemish.training.machine import Machine, choose_machine
from blemish.training.patches import PreparedPictures

__all__ = [
    "STATE_FILE",
    "DivergedError",
    "Machine",
    "PreparedPictures",
    "Progress",
    "choose_machine",
    "train",
]
