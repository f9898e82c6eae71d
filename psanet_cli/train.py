"""`psanet train`: trains a network, or goes on with an interrupted run."""

import os
from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import app


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Option(help="Configuration, YAML; see configs/. Default: that of the run in --run-dir.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Run folder to make, or to go on with; needed unless --dry-run.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. train.batch_size=8.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Initial weights: imagenet (a published backbone that fits), a name of psanet weights list, a URL, a "
            "run folder, .keras, .pth or .safetensors of the original or of a torchvision ResNet, keras.applications "
            "weights. Short for --set train.init=FILE."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Short for --set train.epochs=N.")] = None,
    extend: Annotated[
        bool,
        typer.Option(
            "--extend", help="Make the run in --run-dir longer, to --epochs, with another learning rate then."
        ),
    ] = False,
    workers: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT,...", help="Train on several machines: all of them, the same list on each."),
    ] = None,
    index: Annotated[int | None, typer.Option(help="Which of --workers this machine is, from 0.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print sizes, memory, steps and the time of a step; train nothing.")
    ] = False,
    fit_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="With --dry-run: propose settings for devices with this memory, e.g. 8GB."),
    ] = None,
):
    """Train on all GPUs of this machine (or its CPU) and write checkpoints and metrics to the run folder.

    Interrupted, at whatever moment, it goes on where it was when the same command is given again; --run-dir alone does
    too. On Ctrl-C or SIGTERM it saves after the step it is in and ends with status 130 or 143.

    \b
    Examples:
      psanet train --config configs/scenes/psanet.yaml --run-dir runs/scenes
      psanet train --config configs/ade20k/psanet50.yaml --run-dir runs/ade --init resnet50_v2.pth --set data.root=ADE
      psanet train --config configs/ade20k/psanet50.yaml --dry-run --fit-memory 8GB
      psanet train --run-dir runs/scenes --extend --epochs 30
      psanet train --config FILE --run-dir SHARED/run --workers a:2222,b:2222 --index 0   (on a; on b --index 1)
    """
    from psanet_tf.config import load_config
    from psanet_tf.files import NoSpaceError

    overrides = list(overrides or ())
    if init is not None:
        overrides.append(f"train.init={init}")
    if epochs is not None:
        overrides.append(f"train.epochs={epochs}")
    if config is None:
        config = _config_of_run(run_dir)
    checked = load_config(config, overrides)
    if dry_run:
        from psanet_tf.training.dry_run import dry_run as describe
        from psanet_tf.training.fit_memory import parse_memory

        print(describe(checked, None if fit_memory is None else parse_memory(fit_memory)))
        return
    if fit_memory is not None:
        raise ValueError("--fit-memory proposes settings and trains nothing: it goes with --dry-run")
    if run_dir is None:
        raise ValueError("--run-dir is missing: the folder for checkpoints and metrics")

    if workers is not None or index is not None:
        from psanet_tf.training.multi_worker import set_workers

        set_workers(workers or "", index)
    from psanet_tf.training.interruption import TrainingInterrupted
    from psanet_tf.training.trainer import train as run_training

    try:
        result = run_training(checked, run_dir, extend=extend)
    except (FloatingPointError, NoSpaceError) as error:
        print(f"psanet: training stopped: {error}")
        raise typer.Exit(1) from None
    except TrainingInterrupted as error:
        print(f"psanet: {error}")
        raise typer.Exit(128 + error.signal) from None
    except ConnectionError as error:
        print(f"psanet: training stopped: {error}", flush=True)
        # Not by the interpreter's way out, where TensorFlow waits for the worker that is gone.
        os._exit(1)
    run, position = result.run, result.position
    if position.best_miou is not None:
        print(f"best validation mIoU {position.best_miou:.4f} in epoch {position.best_epoch} of {position.epoch}")
    print(f"checkpoints: {run.best_file} (best), {run.last_file} (last)")
    print(f"metrics:     {run.csv_file}, {run.json_lines_file}; configuration: {run.config_file}")
    if checked.train.tensorboard:
        print(f"curves:      tensorboard --logdir {run.tensorboard_folder}")
    print(f"next:        psanet evaluate --weights {run.path}")
    print(f"             psanet export --weights {run.path} --out models/{run.path.name}")


def _config_of_run(run_dir):
    if run_dir is None:
        raise ValueError("--config is missing: the configuration of the run, see configs/")
    file = run_dir / "config.yaml"
    if not file.is_file():
        raise ValueError(f"--config is missing: {run_dir} holds no run that could go on with its own")
    return file
