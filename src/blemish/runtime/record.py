"""Record of an export in ``model.json``: parts of the anomaly model, their graphs, and how closely they agree."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

from blemish.detectors.combination import CombinationRule
from blemish.limits import MAX_CHANNELS, plain_name

RuntimeName = Literal["onnx", "openvino"]
Precision = Literal["fp32", "fp16", "int8"]
RUNTIME_WORDS: dict[RuntimeName, str] = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}

GraphName = Annotated[str, AfterValidator(plain_name)]
"""Name of a file in the folder, which leads nowhere else."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExportedNetwork(_Record):
    """Network of a reconstruction model, which sees tiles."""

    kind: Literal["network"] = "network"
    graph: GraphName
    title: str
    patch: int = Field(ge=1, le=4096)
    stride: int = Field(ge=1, le=4096)
    tiles_at_once: int = Field(ge=1, le=65536)
    takes_absent: bool
    channels: int = Field(ge=1, le=MAX_CHANNELS)
    modalities: tuple[int, ...] = ()
    """Channels of each modality that has maps of its own."""


class ExportedExtractor(_Record):
    """Feature extractor of a bank."""

    name: str
    """``structure``, ``local-contrast``, ``colour``, or ``graph``."""
    graph: GraphName | None = None
    """Of the features of a whole image; only of ``graph``."""
    patch: int = Field(0, ge=0, le=512)
    floor: float = Field(0.0, ge=0)
    stride: int = Field(ge=1, le=512)
    offset: int = Field(0, ge=0, le=512)
    least_side: int = Field(ge=1, le=8192)
    title: str


class ExportedBank(_Record):
    """Features of good images under one extractor."""

    extractor: ExportedExtractor
    search: GraphName | None
    """Graph of the squared distance to the nearest feature; None where places matter, and the features are an array."""
    nearest_images: int = Field(ge=1)
    reach: int = Field(ge=0, le=64)


class ExportedMemory(_Record):
    """Memory bank: banks whose maps are added."""

    kind: Literal["memory bank"] = "memory bank"
    title: str
    banks: tuple[ExportedBank, ...] = Field(min_length=1)


class ExportedFilters(_Record):
    """Filter bank."""

    kind: Literal["filter bank"] = "filter bank"


ExportedMember = Annotated[ExportedNetwork | ExportedMemory | ExportedFilters, Field(discriminator="kind")]


class Parity(_Record):
    """Largest differences from the model in torch, on the images that an export was checked on."""

    images: int = Field(ge=1)
    generated: bool
    """Whether the images were generated, because none of the calibration was given."""
    score: FiniteFloat = Field(ge=0)
    """Of the score, relative."""
    map: FiniteFloat = Field(ge=0)
    """Of the anomaly map, relative to its largest value."""


class PrecisionCost(_Record):
    """Cost of a lower precision, on held-out good images: before, in single precision, and after."""

    images: int = Field(ge=1)
    auroc: tuple[float, float]
    """Image AUROC of synthetic anomalies in these images against the images."""
    rejected: tuple[float, float]
    """Share of the images that is rejected."""
    threshold: tuple[float, float]

    def in_words(self, precision: Precision) -> str:
        """The cost as a sentence."""
        (auroc, lower), (rejected, then) = self.auroc, self.rejected
        return (
            f"{precision} on {self.images} held-out good images: image AUROC of synthetic anomalies {auroc:.4f} before and "
            f"{lower:.4f} after, good images rejected {100 * rejected:.1f} % and {100 * then:.1f} %, threshold "
            f"{self.threshold[0]:.6g} and {self.threshold[1]:.6g}."
        )


class Export(_Record):
    """Export of an anomaly model."""

    runtime: RuntimeName
    precision: Precision = "fp32"
    opset: int = Field(ge=1)
    weights_sha256: str
    """Of the model that was exported."""
    graphs: dict[GraphName, str]
    """SHA-256 of each file of a graph."""
    members: tuple[ExportedMember, ...] = Field(min_length=1)
    names: tuple[str, ...]
    combination: CombinationRule | None = None
    """None for one member alone."""
    parity: Parity | None = None
    """Of the graphs in single precision; None before they are compared."""
    cost: PrecisionCost | None = None
    """Of a lower precision; None of single precision."""
