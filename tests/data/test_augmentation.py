"""Augmentation against the original's chain and against slow references."""

from psanet_tf.data.augmentation import apply_augmentation
from psanet_tf.data.normalization import MEAN


def apply(image, label, **changes):
    arguments = {
        "scale": 1.0,
        "angle_degrees": 0.0,
        "blur": False,
        "flip": False,
        "offset_yx": (0, 0),
        "crop_size": label.shape,
        "fill": MEAN,
        "ignore_label": 255,
    }
    return apply_augmentation(image, label, **{**arguments, **changes})


def test_agrees_with_the_original_chain(golden):
    arrays, meta = golden("augment")
    for index, case in enumerate(meta["cases"]):
        image, label = apply_augmentation(
            arrays["image"],
            arrays["label"],
            scale=case["scale"],
            angle_degrees=case["angle_degrees"],
            blur=case["blur"],
            flip=case["flip"],
            offset_yx=case["offset_yx"],
            crop_size=tuple(case["crop"]),
            fill=meta["fill_rgb"],
            ignore_label=meta["ignore"],
        )
        expected = arrays[f"image{index}"].astype(float)
        image, label = image.numpy(), label.numpy()
        print(index, abs(image - expected).mean(), (label == arrays[f"label{index}"]).mean())
        assert abs(image - expected).mean() < 4.5
        assert (label == arrays[f"label{index}"]).mean() > 0.92
