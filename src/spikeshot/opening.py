"""A trained learner beside the recordings it is put to: what an evaluation begins with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spikeshot.assemble import build_learner
from spikeshot.assemble_data import load_recordings, split_of_others, task_space
from spikeshot.assemble_network import build_network
from spikeshot.config import Config
from spikeshot.data.corpora import CORPORA
from spikeshot.data.episodes import Episode, Task, TaskSpace
from spikeshot.data.recordings import Recordings
from spikeshot.errors import ConfigError
from spikeshot.learn.meta_train import Learner
from spikeshot.learn.rules.rule import Params
from spikeshot.learn.scoring import Score
from spikeshot.overriding import weights_and_rates
from spikeshot.snn.network import resize_readout
from spikeshot.stored import StoredLearner
from spikeshot.study.baselines.networks import AnyNetwork
from spikeshot.training import scorer


@dataclass(frozen=True)
class Opened:
    """A learner and the tasks of one meta-split.

    `init`: its parameters, with a readout for the tasks' ways; `learned`: what its rule has
    learned; `steps`: inner steps of a task.
    """

    stored: StoredLearner
    config: Config
    corpus: str
    space: TaskSpace
    network: AnyNetwork
    learner: Learner
    init: Params
    learned: Params
    steps: int

    def scorer(self, *, count_writes: bool = False) -> Callable[[Episode], Score]:
        """Return the function that scores an episode, and counts its writes where asked to."""
        return scorer(
            *(self.network, self.learner, self.init, self.learned, self.steps),
            count_writes=count_writes,
        )


def data_of(
    stored: StoredLearner, config: Config, corpus: str | None, path: Path | None
) -> tuple[str, Recordings]:
    """Return the corpus and recordings to put a learner to: by default, those it was trained on.

    With `path` alone, a run that reads no data is put to the real corpus (`nmnist`).
    """
    record = stored.data()
    corpus = corpus or _corpus_of(record.corpus, path)
    if corpus == record.corpus and path is None and record.path:
        path = Path(record.path)
    return corpus, load_recordings(config, corpus, path)


def _corpus_of(trained_on: str, path: Path | None) -> str:
    """Return the corpus to evaluate on: the run's, or the real one when the run's reads no data."""
    reads_data = trained_on not in CORPORA or CORPORA[trained_on].needs_path
    return trained_on if path is None or reads_data else "nmnist"


def opened_on(
    stored: StoredLearner,
    config: Config,
    corpus: str,
    recordings: Recordings,
    *,
    split: str = "test",
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    steps: int | None = None,
) -> Opened:
    """Return a learner beside the tasks of a meta-split; None: as it was trained.

    Recordings and classes that the run has never seen count as test recordings and test classes.
    Raises `ConfigError` where their frames are of another size.
    """
    record, t = stored.data(), config.task
    task = Task(ways or t.ways, shots or t.shots, queries or t.queries)
    known = record.split
    if recordings.digest != record.digest:
        known = split_of_others(config, known, recordings)
    space = task_space(config, recordings, known, split, task=task)
    if list(space.frame_shape) != stored.about["frame_shape"]:
        raise ConfigError(
            f"frames of corpus {corpus!r} are {space.frame_shape}, the run was trained on "
            f"{tuple(stored.about['frame_shape'])}. Use recordings of the same sensor."
        )
    network = build_network(config, space.frame_shape)
    learner = build_learner(config, network)
    init, learned = weights_and_rates(stored, learner)
    steps = steps if steps is not None else config.learn.steps_after_training
    fitting = resize_readout(init, task.ways)
    return Opened(*(stored, config, corpus, space, network, learner, fitting, learned, steps))
