"""Synthetic scenes of a second kind: who knows where to look is the destination in some, the source in others.

Half of the images show a shore: four waters at the left, four lamps at the right. At each water is a dial whose hand
points at one of the lamps, and that lamp's colour is the water's kind: yellow a *pond*, red a *lake*, blue a *lagoon*.
The other half show farmland: four fields at the left, four signposts at the right. The hand on a signpost's board
points at one of the fields, each field is pointed at by one board, and the board's colour is the field's kind: yellow
*wheat*, red *barley*, blue *rye*. A hand straight across means the own row; it turns by 45 degrees for each row up or
down, two at most.

Call waters and fields *targets*, lamps and boards *sources*. What it takes to tell a target's kind:

* **No local appearance tells it.** Each source has a colour of its own, drawn independently, and nothing else depends
  on the colours: images that differ in these have the same pixels everywhere but in the discs of the sources, at least
  80 columns away from all targets. A feature of the small ResNet (blocks [1, 1, 1, 1], ``variant: mmseg``) sees
  `FIELD_OF_VIEW` = 79 pixels: 11 after the stem, 15 after the pooling, 23, 31, 47 and 79 after the four stages
  (strides 4, 8, 8, 8; dilations 1, 1, 1, 2). The head adds 16, and an output pixel is interpolated from features at
  most 7 pixels away from it: nothing farther off than 54 pixels can change its class in the FCN, which is right about
  one target in three. Nor does a feature see a target and a source at once, to tell the one about the other.
* **No pooling tells it.** What is said of all sources together, without their places, is the same for the four targets
  of an image, whose kinds differ.
* **Neither direction alone looks at what tells it, for one half of the classes.** The attention works on every sixth
  feature: one for each row of the scene, and so far apart that none sees the sources, or the dials, of two rows. Let
  f(s) be what the feature at source s says, and o(s) its offset from a target.

  *Collect* gives the target a mean, the sum of a(o(s)) f(s) over the sources s, with weights a that the target
  chooses. A water sees its dial, and can choose the one lamp. A field sees nothing that depends on the boards: its a
  are the same whatever they say, so that a board counts as much when it points here as when it points elsewhere; and
  f(s), which tells hand and colour, does not know o(s). As all channels have the same weights, a network would have to
  find out from the sums which of the four weights are in each: 16 sums between 0 and 1, some of them no more than 1/15
  apart, and for every hand and colour another.

  *Distribute* gives the target the same sum with weights that the sources choose, but for a factor that they have in
  common, since they are normalized over the sources. A board sees its hand, and can choose the one field. A lamp sees
  nothing that depends on the dials: wherever a dial points, its water gets the same mean of all lamps, and would have
  to find the one's colour in such sums.

* **Both together look at all of it**, each direction for its half of the classes.

What collect says of fields, and distribute of waters, is what a network learns to read from such sums, and for
benchmarks/ablation.py to measure. All other classes can be told from a few pixels around.
`psanet_tf.data.scene_files` writes the images.
"""

import dataclasses

import numpy as np

from psanet_tf.data.catalog import dataset_info
from psanet_tf.data.scene_canvas import SceneCanvas

HEIGHT, WIDTH = 241, 145
FIELD_OF_VIEW = 79  # pixels that a feature of the small ResNet sees, before the attention
ROWS = 4
PITCH = 48  # pixels from one row to the next
TARGET_COLUMNS = 48  # waters and fields keep to this many columns at the left edge
SOURCE_COLUMNS = 17  # lamps and boards to this many at the right edge
WATERS = ("pond", "lake", "lagoon")
FIELDS = ("wheat", "barley", "rye")
COLORS = ((250, 215, 40), (225, 35, 45), (60, 190, 235))
REACH = 2  # rows up or down that a hand points at most
DEGREES = 45  # that it turns from one row to the next

_MIDDLE_COLUMN = 30  # of waters and fields
_RADIUS = 7.4  # of lamps, boards and dials, in pixels
_HAND_COLOR = (24, 24, 28)


@dataclasses.dataclass(frozen=True)
class SignpostPlan:
    """What an image shows where.

    Attributes:
        is_shore: waters and lamps; else fields and signposts.
        hands: for each row from above, of a shore the row that its water's dial points at, of farmland the row that its
            board points at.
        colors: index into `COLORS` of the lamp or board in each row.
    """

    is_shore: bool
    hands: tuple[int, ...]
    colors: tuple[int, ...]

    @property
    def kinds(self) -> tuple[int, ...]:
        """Index into `WATERS` or `FIELDS` for each row."""
        if self.is_shore:
            return tuple(self.colors[row] for row in self.hands)
        return tuple(self.colors[self.hands.index(row)] for row in range(ROWS))


@dataclasses.dataclass(frozen=True)
class SignpostScene:
    """One image.

    Attributes:
        plan: what it shows.
        image: uint8 [HEIGHT, WIDTH, 3], RGB.
        label: uint8 [HEIGHT, WIDTH], train ids.
        sources: bool [HEIGHT, WIDTH], where the discs of lamps or boards are.
        targets: bool [HEIGHT, WIDTH], where waters, with their dials, or fields are.
    """

    plan: SignpostPlan
    image: np.ndarray
    label: np.ndarray
    sources: np.ndarray
    targets: np.ndarray


def plan_signposts(seed: int, split: str, index: int) -> SignpostPlan:
    """Plans one image.

    Args:
        seed, split, index: which image; `split` is ``"training"`` or ``"validation"``. Every second one is a shore.

    Raises:
        ValueError: a negative seed.
    """
    rng = _generator(seed, split, index, 0)
    is_shore = index % 2 == 0
    rows = np.arange(ROWS)
    if is_shore:
        hands = rng.integers(np.maximum(rows - REACH, 0), np.minimum(rows + REACH, ROWS - 1) + 1)
    else:
        hands = rng.permutation(ROWS)
        while abs(hands - rows).max() > REACH:
            hands = rng.permutation(ROWS)
    colors = rng.integers(0, len(COLORS), ROWS)
    return SignpostPlan(is_shore, tuple(hands.tolist()), tuple(colors.tolist()))


def make_signpost_scene(seed: int, split: str, index: int, plan: SignpostPlan | None = None) -> SignpostScene:
    """Draws one image.

    Args:
        seed, split, index: which image, as for `plan_signposts`.
        plan: what it shows; default: what `plan_signposts` says.

    Raises:
        ValueError: a negative seed.
    """
    plan = plan_signposts(seed, split, index) if plan is None else plan
    canvas = _Canvas(HEIGHT, WIDTH, _generator(seed, split, index, 1), dataset_info("signposts").class_names)
    horizon = canvas.draw_sky_and_mountains(0.08, mountains=0.4)
    canvas.draw_grass(horizon)
    shapes = [canvas.water_shape(row) if plan.is_shore else canvas.field_shape(row) for row in range(ROWS)]
    in_between = (canvas.columns >= TARGET_COLUMNS) & (canvas.columns < WIDTH - SOURCE_COLUMNS)
    canvas.draw_trees(horizon, ~in_between)
    targets = np.any(shapes, axis=0)
    for row, (shape, kind) in enumerate(zip(shapes, plan.kinds, strict=True)):
        if plan.is_shore:
            canvas.draw_water(shape, WATERS[kind])
            targets |= canvas.draw_dial(row, plan.hands[row] - row)
        else:
            canvas.draw_field(shape, FIELDS[kind])
    sources = np.zeros((HEIGHT, WIDTH), bool)
    for row, color in enumerate(plan.colors):
        sources |= canvas.draw_source(row, COLORS[color], None if plan.is_shore else plan.hands[row] - row)
    return SignpostScene(plan, canvas.finished_image(), canvas.label, sources, targets)


def _generator(seed, split, index, purpose):
    if seed < 0:
        raise ValueError(f"seed: must not be negative, got {seed}")
    return np.random.default_rng([seed, ("training", "validation").index(split), index, purpose])


class _Canvas(SceneCanvas):
    """Waters or fields on the left, lamps or signposts on the right."""

    def water_shape(self, row):
        rng = self.rng
        row, column = _middle(row) + rng.uniform(-1, 1), _MIDDLE_COLUMN + rng.uniform(-1, 1)
        radius_y, radius_x = rng.uniform(12, 15), rng.uniform(15, 17)
        angle = np.arctan2((self.rows - row) / radius_y, (self.columns - column) / radius_x)
        bumps = sum(rng.uniform(0, 0.05) * np.cos(order * angle + rng.uniform(0, 2 * np.pi)) for order in (2, 3, 4))
        distance = np.hypot((self.rows - row) / radius_y, (self.columns - column) / radius_x)
        return (distance < 1 + bumps) & (self.columns < TARGET_COLUMNS)

    def draw_water(self, shape, kind):
        color = np.array([52, 106, 168]) + self.rng.uniform(-16, 16, 3)
        ripples = 10 * np.sin(self.rows * self.rng.uniform(0.9, 1.3) + 3 * self.noise(10, stretch=3))
        self.paint(shape, color + (ripples + 16 * self.noise(2, stretch=4))[..., None], kind)

    def field_shape(self, row):
        rng = self.rng
        row, column = _middle(row) + rng.uniform(-1, 1), _MIDDLE_COLUMN + rng.uniform(-1, 1)
        slant = rng.uniform(-0.2, 0.2) * (self.rows - row)
        inside = abs(self.columns + slant - column) < rng.uniform(13, 15)
        return inside & (abs(self.rows - row) < rng.uniform(11, 14)) & (self.columns < TARGET_COLUMNS)

    def draw_field(self, shape, kind):
        color = np.array([176, 148, 70]) + self.rng.uniform(-16, 16, 3)
        furrows = 14 * np.sin(self.columns * self.rng.uniform(0.9, 1.3) + 2 * self.noise(12))
        self.paint(shape, color + (furrows + 10 * self.noise(1.5))[..., None], kind)

    def draw_dial(self, row, turn):
        """Returns where it is."""
        row, column = _middle(row) + self.rng.uniform(-0.5, 0.5), TARGET_COLUMNS - 8.5 + self.rng.uniform(-0.5, 0.5)
        disc = self._draw_disc(row, column, (236, 234, 228), "dial")
        self._draw_hand(row, column, turn * DEGREES, "dial")
        return disc

    def draw_source(self, row, color, turn):
        """A lamp, or with a turn the board of a signpost; returns where its disc is."""
        row, column = (
            _middle(row) + self.rng.uniform(-0.5, 0.5),
            WIDTH - SOURCE_COLUMNS / 2 + self.rng.uniform(-0.5, 0.5),
        )
        name = "lamp" if turn is None else "signpost"
        post = (abs(self.columns - column) < 1.6) & (self.rows > row) & (self.rows < row + 13)
        self._fill(post, (92, 70, 50), name)
        disc = self._draw_disc(row, column, color, name)
        if turn is not None:
            self._draw_hand(row, column, 180 - turn * DEGREES, name)
        return disc

    def _draw_disc(self, row, column, color, name):
        disc = np.hypot(self.columns - column, self.rows - row) < _RADIUS
        self._fill(disc, color, name)
        return disc

    def _draw_hand(self, row, column, degrees, name):
        """From the middle of a disc almost to its rim; 0 degrees to the right, turning down."""
        right, down = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        along = (self.columns - column) * right + (self.rows - row) * down
        across = (self.rows - row) * right - (self.columns - column) * down
        hand = (abs(across) < 1.7) & (along > -1.7) & (along < _RADIUS - 0.5)
        self._fill(hand, _HAND_COLOR, name)

    def _fill(self, where, color, name):
        self.paint(where, np.broadcast_to(np.array(color, np.float32), self.image.shape), name)


def _middle(row):
    return PITCH * (row + 1)
