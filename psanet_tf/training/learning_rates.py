"""Which variables of a network learn how fast: the tenfold heads, and rates by pattern."""

import difflib
import re
from collections.abc import Iterator

from psanet_tf.config import TrainSection
from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet
from psanet_tf.models.variables import HEAD_PATTERN
from psanet_tf.training.freezing import BACKBONE, backbone_layers


def learning_rate_factors(section: TrainSection, model: PSANet | None) -> list[tuple[str, float]]:
    """What `DistributedOptimizer` takes: pairs (regular expression of paths, factor), of which the first counts.

    Args:
        section: `TrainSection`.
        model: the network; needed only where the section has `learning_rate_multipliers`.

    Returns:
        The patterns in their order, each as the paths of the variables that it fits and none before it did, then the
        heads.

    Raises:
        ValueError: a pattern that fits no trainable variable, or none that a pattern before it does not fit; the
            message names the nearest.
    """
    heads = (HEAD_PATTERN, section.head_learning_rate_factor)
    if not section.learning_rate_multipliers:
        return [heads]
    names = variable_names(model)
    rest, factors = dict(names), []
    for pattern, factor in section.learning_rate_multipliers.items():
        fitting = [path for path, name in rest.items() if re.search(pattern, name)]
        if not fitting:
            raise ValueError(_fits_nothing(pattern, names.values()))
        rest = {path: name for path, name in rest.items() if path not in fitting}
        factors.append((f"^({'|'.join(map(re.escape, fitting))})$", factor))
    return [*factors, heads]


def variable_names(model: PSANet) -> dict[str, str]:
    """{path: name} of the trainable variables; the names of the backbone's begin with ``backbone/``, whatever it is."""
    of_backbone = {variable.path for layer in backbone_layers(model) for variable in layer.trainable_variables}
    paths = [variable.path for variable in model.trainable_variables]
    return {path: f"{BACKBONE}/{path}" if path in of_backbone else path for path in paths}


def describe_learning_rates(section: TrainSection, model: PSANet) -> list[str]:
    """A table of rate, factor and variables for the optimizer that the model was compiled with; lines of text."""
    names, base = variable_names(model), section.learning_rate
    lines = [f"learning rates at the start (train.learning_rate {base:g}):"]
    for pattern, factor, group in _groups(section, model, names):
        first, last = group[0], group[-1]
        span = first if len(group) == 1 else f"{first} to {last}"
        lines.append(f"  {f'{base * factor:.3g}':>9} (x {factor:g}): {pattern}: {len(group)} variables, {span}")
    return lines


def distinct_rates(model: keras.Model) -> list[float]:
    """The rates that the optimizer gives the variables now, each once, the smallest first."""
    rate = float(model.optimizer.learning_rate)
    return sorted({rate * factor for factor in model.optimizer.factors})


def _groups(section, model, names) -> Iterator[tuple[str, float, list[str]]]:
    """(what it is, factor, names of its variables) of what learns at one rate for one reason."""
    patterns = [*section.learning_rate_multipliers, "attention module and heads"]
    factors = model.optimizer.learning_rate_factors
    rest = list(names)
    for what, (pattern, factor) in zip(patterns, factors, strict=True):
        fitting = [path for path in rest if re.search(pattern, path)]
        rest = [path for path in rest if path not in fitting]
        if fitting:
            yield what, factor, [names[path] for path in fitting]
    if rest:
        yield "all others" if len(rest) < len(names) else "all", 1.0, [names[path] for path in rest]


def _fits_nothing(pattern, names):
    names = list(names)
    near = difflib.get_close_matches(pattern.replace(".*", ""), names, n=3, cutoff=0.3) or names[:: -(-len(names) // 3)]
    return (
        f"train.learning_rate_multipliers: {pattern!r} is found in no path of a trainable variable that is left for "
        f"it; there are for instance {', '.join(near)}"
    )
