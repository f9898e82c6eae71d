"""What is known about a trained network besides its weights; travels inside its `.keras` file."""

import dataclasses
from typing import Any

import pydantic

from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.normalization import MEAN, STD
from psanet_tf.models import PSANet


@dataclasses.dataclass(frozen=True)
class Description:
    """Classes, preprocessing and prediction protocol of a trained network.

    Attributes:
        info: DatasetInfo of its classes.
        evaluate: EvaluateSection by which it labels images; None where nothing is known.
        source: name, address or file that the weights came from; None for those trained here.
    """

    info: DatasetInfo
    evaluate: EvaluateSection | None = None
    source: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes back; plain values, for JSON."""
        return {
            "info": self.info.to_dict(),
            "evaluate": self.evaluate and self.evaluate.model_dump(mode="json"),
            "preprocessing": preprocessing(),
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Description":
        """The description in `values`.

        Raises:
            ValueError: not what `to_dict` writes, or a preprocessing that this package does not do.
        """
        try:
            evaluate = values["evaluate"]
            description = cls(
                DatasetInfo.from_dict(values["info"]),
                evaluate and EvaluateSection.model_validate(evaluate, strict=False),
                values["source"],
            )
            found = values["preprocessing"]
        except (KeyError, TypeError, AttributeError, pydantic.ValidationError) as error:
            raise ValueError(f"not the description of a network of this package: {error!r}") from None
        if found != preprocessing():
            raise ValueError(f"the network wants images prepared as {found}, this package prepares {preprocessing()}")
        return description


def preprocessing() -> dict[str, Any]:
    """How an image becomes the network's input: ``(rgb - mean) / std`` of values 0 to 255."""
    return {"channels": "RGB", "mean": MEAN.tolist(), "std": STD.tolist()}


def describe(model: PSANet, description: Description) -> None:
    """Makes `description` part of the model, and of every `.keras` file that is written of it.

    Raises:
        ValueError: another number of classes than the model has.
    """
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
