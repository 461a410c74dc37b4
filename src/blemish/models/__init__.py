"""Autoencoders assembled from parts; one family of parts a file."""

from blemish.models import convolutional as convolutional
from blemish.models.autoencoder import Autoencoder, Loss, Output, Residual
from blemish.models.registry import DECODERS, ENCODERS, build, register

__all__ = ["DECODERS", "ENCODERS", "Autoencoder", "Loss", "Output", "Residual", "build", "register"]
