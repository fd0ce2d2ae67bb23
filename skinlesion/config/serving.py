"""The section `export` of `params.yaml`."""

from pydantic import Field

from skinlesion.config.schema import Section, Seed


class ExportParams(Section):
    """How the classifier is exported to ONNX, and measured."""

    batch_size: int = Field(ge=1)
    calibration_images: int = Field(ge=1, le=100_000)
    float32_layers: int = Field(ge=0, le=10_000)
    rounds: int = Field(ge=1, le=10_000)
    seed: Seed
