"""Configurations: what is read, what is refused and in which words."""

from pathlib import Path

import pytest

from psanet_tf.config import dump_config, flat_config, load_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*/*.yaml"))


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "minimal.yaml"
    path.write_text("data:\n  root: somewhere\n")
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_configuration_is_valid_and_survives_a_round_trip(path, tmp_path):
    config = load_config(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(config))
    assert load_config(copy) == config


def test_recipes_of_the_paper_are_shipped():
    names = {f"{path.parent.name}/{path.stem}" for path in CONFIGS}
    assert names >= {f"{data}/psanet{depth}" for data in ("ade20k", "voc2012", "cityscapes") for depth in (50, 101)}
    for path in CONFIGS:
        train = load_config(path).train
        if path.stem in ("psanet50", "psanet101"):
            assert (train.optimizer, train.learning_rate, train.poly_power, train.momentum) == ("sgd", 0.01, 0.9, 0.9)
            assert (train.batch_size, train.weight_decay, train.aux_weight) == (16, 1e-4, 0.4)
            assert (train.head_learning_rate_factor, train.sync_batch_norm) == (10, True)


def test_flat_configuration_has_every_key_once_and_values_as_they_are(minimal):
    flat = flat_config(
        load_config(
            minimal, ["train.optimizer=adam", "train.learning_rate=1e-3", "train.optimizer_arguments={beta_2: 0.9}"]
        )
    )
    assert flat["data.root"] == "somewhere"
    assert flat["data.crop_size"] == [465, 465]
    assert flat["data.augmentation.scale"] == [0.5, 2.0]
    assert flat["train.optimizer_arguments"] == {"beta_2": 0.9}
    assert list(flat)[-1] == "evaluate.batch_size"


def test_overrides_are_read_as_yaml(minimal):
    config = load_config(
        minimal, ["train.batch_size=8", "train.weight_decay=1e-4", "data.crop_size=[33, 65]", "model.use_psa=false"]
    )
    assert config.train.batch_size == 8
    assert config.train.weight_decay == 1e-4
    assert config.data.crop_size == (33, 65)
    assert config.model.use_psa is False


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.bach_size=8", "train.bach_size: there is no such key; known here: .*batch_size"),
        ("trian.epochs=8", "trian: there is no such key; known here: data, model, train, evaluate"),
        ("train.epochs=many", "train.epochs: .*integer.*'many'"),
        ("train.epochs=0", "train.epochs: .*greater than or equal to 1"),
        ("train.batch_size=1.5", "train.batch_size: .*integer"),
        ("train.sync_batch_norm=1", "train.sync_batch_norm: .*boolean"),
        ("data.dataset=coco", "data.dataset: .*'ade20k'"),
        ("data.crop_size=[464, 8]", r"data.crop_size: .*at least 9, got \[464, 8\]"),
        ("model.align_corners=false", "model: align_corners: false needs variant: mmseg"),
        ("model={variant: mmseg, stem: deep}", "model: variant: mmseg needs stem: v1c .*, got deep and false"),
        ("model={variant: mmseg, stride_in_1x1: true}", "model: variant: mmseg needs .*, got v1c and true"),
        ("model={stem: v1c, width: 5}", "model: stem: v1c begins with half of width, .* got 5"),
        ("model={variant: mmseg, mask_size: [0, 66]}", r"must be positive, got \[0, 66\]"),
        ("model.depth=34", "model.depth: .*50, 101 or 152"),
        ("model.mask_size=[58, 59]", r"model.mask_size: .*must be odd.*got \[58, 59\]; \[59, 59\] covers"),
        ("model.blocks=[1, 1, 0, 1]", "model.blocks: every stage needs at least one block"),
        ("evaluate.scales=[]", "evaluate.scales: "),
        ("evaluate.stride_rate=0", "evaluate.stride_rate: .*greater than 0"),
        ("train.loss={dise: 1}", "train.loss.dise.*: .*'cross_entropy'.*'dice'"),
        ("train.loss={dice: 0}", "train.loss.dice: .*greater than 0"),
        ("train.loss={}", "train.loss: .*at least 1 item"),
        ("train.focal_gamma=-1", "train.focal_gamma: .*greater than or equal to 0"),
        ("train.class_weights=frequency", "train.class_weights.*: .*'median_frequency'"),
        ("train={loss: {dice: 1}, class_weights: [1, 2]}", "train: class_weights weigh .* train.loss has dice"),
        (
            "train={loss: {focal: 1}, label_smoothing: 0.1}",
            "train: label_smoothing: only for cross_entropy.* has focal",
        ),
        ("train={loss: {focal: 1}, ohem_threshold: 0.7}", "train: ohem_threshold: only for cross_entropy"),
        (
            "train.focal_gamma=1",
            "train: focal_gamma: only for focal, train.loss has cross_entropy: 1 would change noth",
        ),
        ("train.ohem_min_kept=0.1", "train: ohem_min_kept: only beside ohem_threshold, .*: 0.1 would change nothing"),
        (
            "train={schedule: cosine, poly_power: 2}",
            "train: poly_power: only for schedule: poly, .* is cosine: 2 would",
        ),
        (
            "train={optimizer: adam, learning_rate: 1e-3, momentum: 0.8}",
            "train: momentum: only for optimizer: sgd; what adam takes goes into optimizer_arguments: 0.8 would change",
        ),
        ("data.label_kind=labelTrainIds", "data: label_kind: only for dataset: cityscapes, got dataset: ade20k"),
        ("train.schedule=step", "train.schedule: .*'poly' or 'cosine'"),
        ("train.learning_rate_multipliers={'layer(': 2}", r"train.learning_rate_multipliers: 'layer\(' is no regular"),
        ("train.learning_rate_multipliers={psa: 0}", "train.learning_rate_multipliers.psa: .*greater than 0"),
        ("train.early_stopping={monitor: iou}", "train.early_stopping.monitor: .*'val_miou'"),
        ("train.early_stopping={patience: 0}", "train.early_stopping.patience: .*greater than or equal to 1"),
        ("train.early_stopping={min_delta: -1}", "train.early_stopping.min_delta: .*greater than or equal to 0"),
        ("train.early_stopping={wait: 3}", "train.early_stopping.wait: there is no such key; known here: monitor, pat"),
        ("train.log_every=0", "train.log_every: .*greater than or equal to 1"),
        ("data.augmentation.cat_max_ratio=0", "data.augmentation.cat_max_ratio: .*greater than 0"),
        (
            "data.augmentation.color_jitter={hue: 0.6}",
            "data.augmentation.color_jitter.hue: .*less than or equal to 0.5",
        ),
        ("data.augmentation.color_jitter={brightness: -1}", "color_jitter.brightness: .*greater than or equal to 0"),
        ("data.augmentation.color_jitter={tint: 1}", "color_jitter.tint: there is no such key; known here: brightness"),
    ],
)
def test_wrong_values_name_the_key(minimal, override, message):
    with pytest.raises(ValueError, match=message):
        load_config(minimal, [override])


def test_values_without_effect_are_refused_over_sections_and_defaults_are_not(minimal, tmp_path):
    with pytest.raises(ValueError, match=r"train\.aux_weight: model\.aux_head is false, 0\.2 would change nothing"):
        load_config(minimal, ["model.aux_head=false", "train.aux_weight=0.2"])
    assert load_config(minimal, ["model.aux_head=false", "train.aux_weight=0"]).train.aux_weight == 0
    usual = ["train.focal_gamma=2", "train.ohem_min_kept=0.0625", "train.schedule=cosine", "train.poly_power=0.9"]
    config = load_config(minimal, [*usual, "train.optimizer=adam", "train.learning_rate=1e-3", "model.aux_head=false"])
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config


def test_defaults_of_the_variants(minimal):
    semseg = load_config(minimal).model
    assert (semseg.variant, semseg.stem, semseg.align_corners) == ("semseg", "deep", True)
    config = load_config(minimal, ["model={variant: mmseg, mask_size: [66, 66]}", "data.crop_size=[512, 1024]"])
    assert (config.model.stem, config.model.align_corners, config.model.mask_size) == ("v1c", False, (66, 66))


def test_coarse_labels_need_crops_that_they_divide(minimal):
    assert load_config(minimal, ["data.crop_size=[464, 480]"]).data.crop_size == (464, 480)
    message = r"data.crop_size must be of the form 8n\+1 with train.zoom_factor 4, got \[464, 465\]; .* \[465, 465\]"
    with pytest.raises(ValueError, match=message):
        load_config(minimal, ["data.crop_size=[464, 465]", "train.zoom_factor=4"])
    with pytest.raises(ValueError, match="train.zoom_factor must be 8 with model.variant mmseg, got 4"):
        load_config(minimal, ["model.variant=mmseg", "train.zoom_factor=4"])


def test_compact_mask_of_the_wrong_size_is_refused(minimal):
    with pytest.raises(ValueError, match=r"model.mask_size: a compact mask .* \[30, 30\] .* got \[59, 59\]"):
        load_config(minimal, ["model.compact=true", "model.mask_size=[59, 59]"])
    assert load_config(minimal, ["model.compact=true", "model.mask_size=[30, 30]"]).model.compact


def test_every_mistake_is_listed_at_once(minimal):
    with pytest.raises(ValueError) as caught:
        load_config(minimal, ["train.epochs=x", "model.depht=50"])
    assert "train.epochs" in str(caught.value)
    assert "model.depht" in str(caught.value)
    assert str(minimal) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: [", "is not YAML"),
        ("- 1\n- 2\n", "must hold sections"),
        ("", "data: is required"),
        ("data: {}", "data.root: is required"),
        ("data: 3", "data: "),
    ],
)
def test_files_that_are_no_configuration(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "must look like train.batch_size=8, got 'train.epochs'"),
        ("=3", "must look like"),
        ("data.root.deeper=3", "'root' is a value, not a section"),
        ("train.epochs=[", "the value is not YAML"),
    ],
)
def test_overrides_that_are_none(minimal, override, message):
    with pytest.raises(ValueError, match=message):
        load_config(minimal, [override])


def test_a_mistake_is_not_told_twice(minimal):
    with pytest.raises(ValueError, match="data.root: must be a folder") as caught:
        load_config(minimal, ["data.root=gs://bucket"])
    assert len(str(caught.value).splitlines()) == 2


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_config(tmp_path / "none.yaml")
