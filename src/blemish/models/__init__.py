"""Autoencoders assembled from parts; one family of parts a file."""

from blemish.models import adversarial as adversarial
from blemish.models import aligning as aligning
from blemish.models import augmentation as augmentation
from blemish.models import backbones as backbones
from blemish.models import blemishes as blemishes
from blemish.models import bottlenecks as bottlenecks
from blemish.models import contractive as contractive
from blemish.models import convolutional as convolutional
from blemish.models import corruption as corruption
from blemish.models import kumar as kumar
from blemish.models import multimodal as multimodal
from blemish.models import segmentation as segmentation
from blemish.models import unet as unet
from blemish.models import variational as variational
from blemish.models.autoencoder import Autoencoder, Loss, Output, Residual
from blemish.models.blemishes import contact_sheet
from blemish.models.multimodal import ModalResiduals, modal_residuals
from blemish.models.registry import DECODERS, ENCODERS, build, register

__all__ = [
    "DECODERS",
    "ENCODERS",
    "Autoencoder",
    "Loss",
    "ModalResiduals",
    "Output",
    "Residual",
    "build",
    "contact_sheet",
    "modal_residuals",
    "register",
]
