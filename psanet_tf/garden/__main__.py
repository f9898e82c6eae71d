"""``python -m psanet_tf.garden``: the Garden's own vision driver, which knows the experiments of this package then."""

from absl import app, flags
from official.common import flags as garden_flags
from official.vision import train


def main() -> None:
    """Defines the Garden's flags and runs its driver."""
    garden_flags.define_flags()
    flags.mark_flags_as_required(["experiment", "mode", "model_dir"])
    app.run(train.main)


if __name__ == "__main__":
    main()
