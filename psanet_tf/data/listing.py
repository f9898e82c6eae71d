"""The images and labels of one split, as a list."""

import dataclasses
from pathlib import Path

from psanet_tf.config import DataSection
from psanet_tf.data.findings import Finding
from psanet_tf.data.folders import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    STORED_SUFFIXES,
    by_stem,
    labels_without_image,
    naming_rule,
    passed_over,
    scan,
)
from psanet_tf.data.image_format import image_format


@dataclasses.dataclass(frozen=True)
class Example:
    """One image and its labels on disk.

    Attributes:
        name: unique within the split, without a suffix; output files take it.
        image_path: an image.
        label_path: a single-channel PNG of the same size.
    """

    name: str
    image_path: Path
    label_path: Path


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of one split.

    Attributes:
        examples: sorted by name.
        findings: about files that are passed over and labels without an image.
        advice: what to do where files of `examples` are missing; may be empty.
    """

    examples: list[Example]
    findings: list[Finding] = dataclasses.field(default_factory=list)
    advice: str = ""

    def missing(self) -> list[Path]:
        """Paths of images and labels that are listed and not there."""
        paths = [path for example in self.examples for path in (example.image_path, example.label_path)]
        return [path for path in paths if not path.is_file()]

    def text(self) -> list[str]:
        """The findings as lines of text."""
        return [line for finding in self.findings for line in finding.lines()]


def same_names(
    data: DataSection, image_folder: Path, label_folder: Path, or_a_list: str = "", ending: str = ".png"
) -> Listing:
    """Images of a folder, and labels of the same names in another.

    Args:
        data: a `DataSection`; its channels and dtype tell which files are images.
        image_folder, label_folder: of one split.
        or_a_list: what else can be done where names do not fit, for messages.
        ending: of label files, after the image's name.

    Raises:
        FileNotFoundError: a folder is not there.
        ValueError: two images, or two labels, of one name.
    """
    images, other_images = scan(image_folder, IMAGE_SUFFIXES if image_format(data).is_photograph else STORED_SUFFIXES)
    label_files, other_labels = scan(label_folder, LABEL_SUFFIXES)
    if image_folder.samefile(label_folder):
        raise ValueError(f"{image_folder}: images and labels need a folder each{or_a_list}")
    images = by_stem(images, "labels and outputs go by it: rename or remove one")
    middle = ending.removesuffix(".png")
    others_of_folder = [path for path in label_files if not path.stem.endswith(middle)]
    label_files = by_stem(
        [path for path in label_files if path.stem.endswith(middle)], "and their image takes one: remove the other"
    )
    label_files = {stem.removesuffix(middle): path for stem, path in label_files.items()}
    other_labels += others_of_folder
    examples = [
        Example(stem, image, label_files.get(stem, label_folder / f"{stem}{ending}")) for stem, image in images.items()
    ]
    unpaired = [path for stem, path in label_files.items() if stem not in images]
    without_labels = [stem for stem in images if stem not in label_files]
    advice, renamed = "", set()
    rule = naming_rule(without_labels, unpaired + other_labels)
    if rule:
        form, named_so = rule
        renamed = set(named_so)
        only_png = "" if form.lower().endswith(".png") else " and must be PNG (other forms change the values in them)"
        found = f"{len(named_so)} of {len(without_labels)} are there as {form}"
        advice = f"{found}; labels take their images' names{only_png}: rename them{or_a_list}"
    move = f"move them up{or_a_list}"
    findings = passed_over(other_images, "images", move)
    findings += passed_over([path for path in other_labels if path not in renamed], "labels", move)
    findings += labels_without_image([path for path in unpaired if path not in renamed])
    return Listing(examples, findings, advice)
