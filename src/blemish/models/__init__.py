"""Autoencoders assembled from parts; one file per family of parts."""

from blemish.models import adversarial_loss as adversarial_loss
from blemish.models import alignment as alignment
from blemish.models import augmentations as augmentations
from blemish.models import bergmann as bergmann
from blemish.models import bottlenecks as bottlenecks
from blemish.models import contractive_loss as contractive_loss
from blemish.models import corruptions as corruptions
from blemish.models import kumar as kumar
from blemish.models import modal_difference as modal_difference
from blemish.models import other_pixels as other_pixels
from blemish.models import pretrained_encoders as pretrained_encoders
from blemish.models import segmentation as segmentation
from blemish.models import synthetic_anomalies as synthetic_anomalies
from blemish.models import unet as unet
from blemish.models import variational as variational
from blemish.models import xie as xie
from blemish.models.autoencoder import Autoencoder
from blemish.models.contact_sheet import contact_sheet
from blemish.models.contracts import Loss, Output, Residual
from blemish.models.modal_similarity import ModalResiduals, modal_residuals
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
