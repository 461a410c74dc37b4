"""One training loop, its checkpoints, and the choice of device and precision."""

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
