"""What is known about a trained network besides its weights; travels inside its `.keras` file."""

import dataclasses
from typing import Any

import pydantic

from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.findings import counted
from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.models import PSANet
from psanet_tf.weights.calibration import Calibration


@dataclasses.dataclass(frozen=True)
class Description:
    """Classes, preprocessing, prediction protocol and calibration of a trained network.

    Attributes:
        info: DatasetInfo of its classes.
        evaluate: EvaluateSection by which it labels images; None where nothing is known.
        source: name, address or file that the weights came from; None for those trained here.
        calibration: what `psanet calibrate` fitted to these weights; None where nothing was.
    """

    info: DatasetInfo
    evaluate: EvaluateSection | None = None
    source: str | None = None
    calibration: Calibration | None = None

    @property
    def temperature(self) -> float:
        """What the network's logits are divided by before the softmax."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes back; plain values, for JSON."""
        values = {
            "info": self.info.to_dict(),
            "evaluate": self.evaluate and self.evaluate.model_dump(mode="json"),
            "preprocessing": preprocessing(self.info.images),
            "source": self.source,
        }
        return values if self.calibration is None else {**values, "calibration": self.calibration.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Description":
        """The description in `values`.

        Raises:
            ValueError: not what `to_dict` writes, or a preprocessing that this package does not do.
        """
        try:
            evaluate, calibration = values["evaluate"], values.get("calibration")
            description = cls(
                DatasetInfo.from_dict(values["info"]),
                evaluate and EvaluateSection.model_validate(evaluate, strict=False),
                values["source"],
                calibration and Calibration.from_dict(calibration),
            )
            found = values["preprocessing"]
        except (KeyError, TypeError, AttributeError, pydantic.ValidationError) as error:
            raise ValueError(f"not the description of a network of this package: {error!r}") from None
        prepared = preprocessing(description.info.images)
        if found != prepared:
            raise ValueError(f"the network wants images prepared as {found}, this package prepares {prepared}")
        return description


def preprocessing(images: ImageFormat = PHOTOGRAPHS) -> dict[str, Any]:
    """How an image becomes the network's input: ``(image - mean) / std``; of photographs RGB, 0 to 255."""
    statistics = {name: value and list(value) for name, value in (("mean", images.mean), ("std", images.std))}
    if images.is_photograph:
        return {"channels": "RGB", **statistics}
    return {"channels": images.channels, "dtype": images.dtype, **statistics}


def describe(model: PSANet, description: Description) -> None:
    """Makes `description` part of the model, and of every `.keras` file that is written of it.

    Raises:
        ValueError: another number of classes, or of channels, than the model has.
    """
    channels = model.input_shape[-1]
    if description.info.images.channels != channels:
        raise ValueError(
            f"{model.name!r} takes images of {counted(channels, 'channel')}, its description is of "
            f"{description.info.images.channels} (data.channels)"
        )
    if description.info.num_classes != model.num_classes:
        raise ValueError(
            f"{model.name!r} has {model.num_classes} classes, its description names {description.info.num_classes}"
        )
    model.description = description.to_dict()


def description_of(model: PSANet) -> Description | None:
    """What `describe` said of a model, or of the one that was saved to its file; None if nothing.

    Raises:
        ValueError: a description that another version of this package wrote.
    """
    return None if model.description is None else Description.from_dict(model.description)


def temperature_of(model: PSANet) -> float:
    """What a model's logits are divided by before the softmax: as its description says, else 1."""
    description = description_of(model)
    return 1.0 if description is None else description.temperature


def images_of(model: PSANet) -> ImageFormat:
    """What images a model takes and how they are normalized: as its description says, else photographs.

    Raises:
        ValueError: no description, and no three channels.
    """
    description = description_of(model)
    if description is not None:
        return description.info.images
    channels = model.input_shape[-1]
    if channels != PHOTOGRAPHS.channels:
        raise ValueError(
            f"nothing says how images of {counted(channels, 'channel')} are normalized for {model.name!r}: give images="
            f"psanet_tf.data.ImageFormat({channels}, dtype, mean, std)"
        )
    return PHOTOGRAPHS
