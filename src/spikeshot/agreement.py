"""Before training goes on: the run, the configuration, the recordings and the processes agree."""

from dataclasses import replace

from spikeshot.assemble_data import Source
from spikeshot.config import Config
from spikeshot.errors import ConfigError, RunError
from spikeshot.learn.parallel import Team
from spikeshot.run_folder import CONFIG, RunFolder, first_difference


def require_same_config(run: RunFolder, config: Config) -> None:
    """Raise `RunError` where the run was started with another configuration."""
    key = first_difference(run.config(), config)
    if key:
        raise RunError(
            f"run {run.path} was started with another configuration: {key}. Resume it with the "
            f"same (`spikeshot train {run.path / CONFIG} --resume`), or choose another --out."
        )


def require_divisible(config: Config, team: Team) -> None:
    """Raise `ConfigError` where the tasks of an iteration cannot be shared out evenly."""
    tasks = config.train.meta_batch
    if team.world > 1 and config.train.minutes:
        raise ConfigError(
            f"train.minutes is {config.train.minutes}, but {team.world} processes have no common "
            "clock; expected train.minutes=0 with several processes."
        )
    if tasks % team.world:
        raise ConfigError(
            f"train.meta_batch is {tasks}; expected a multiple of {team.world}, the number of "
            f"processes. Set train.meta_batch={team.world * (tasks // team.world + 1)}, or start "
            "fewer processes."
        )


def same_source(run: RunFolder, source: Source) -> Source:
    """Return the source with the split that the run began with; the recordings must be its own.

    So must simulated ones, where the run has noted which they were (an older one has not). Raises
    `RunError` for others.
    """
    record = run.data()
    if record.digest != source.recordings.digest:
        raise RunError(
            f"run {run.path} was trained on other recordings (digest {record.digest}, now "
            f"{source.recordings.digest}). Resume with the same --data."
        )
    if record.simulated_digest not in ("", source.simulated_digest):
        raise RunError(
            f"run {run.path} was trained on other simulated recordings (digest "
            f"{record.simulated_digest}, now {source.simulated_digest}). Resume with the same "
            "--data and the same release, or train again with another --out."
        )
    return replace(source, split=record.split)
