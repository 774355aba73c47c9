"""The part of the configuration that says what recordings there are and how they become frames."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from spikeshot.config_learn import Section

Side = Annotated[int, Field(ge=1, le=32_768)]  # pixels


def _crop(value: Any) -> Any:
    """Return a crop, or say what one is: pydantic would tell of the members of a union."""
    whole = isinstance(value, list | tuple) and [type(v) for v in value] == [int] * 4
    if whole or value is None or value == "auto":
        return value
    raise ValueError(
        f"{value!r} is no crop; expected auto, null (the whole sensor) or [left, top, width, "
        "height] in whole pixels"
    )


Crop = Annotated[
    tuple[int, int, int, int] | Literal["auto"] | None,
    BeforeValidator(_crop),
]


class AugmentConfig(Section):
    """Augmentation of meta-training recordings (`data/augment.py`); pixels of the sensor."""

    shift_px: float = Field(0.0, ge=0, le=16)
    rotate_deg: float = Field(0.0, ge=0, le=180)
    scale: float = Field(0.0, ge=0, lt=1)
    shear: float = Field(0.0, ge=0, lt=1)
    drop: float = Field(0.0, ge=0, lt=1)
    jitter_us: float = Field(0.0, ge=0, le=1_000_000)
    symmetry: float = Field(0.0, ge=0, le=1)


class SimulatedConfig(Section):
    """Meta-training on simulated recordings before real ones, and among them.

    `corpus`: whose recordings; one that reads data reads the same `--data` as the run. `share`:
    first part of the iterations whose episodes are simulated; `mix`: share of the later episodes
    that are, too. `first_image`: MNIST training images below this number are left out, so that they
    can never be those of a real validation or test recording.
    """

    corpus: str = "digits"
    share: float = Field(0.0, ge=0, le=1)
    mix: float = Field(0.0, ge=0, le=1)
    first_image: int = Field(1, ge=1)


class DataConfig(Section):
    """Recordings and how they become frames (`data/frames.py`) and tasks.

    `classes`: plain classes, or pairs of them side by side; `split`: the class split, `auto` (the
    corpus's own), `fractions` (`class_fractions`, seeded), the name of one that ships, or a .json
    file (`data/class_splits.py`). `recording_fractions` share out the recordings of the parts of
    pairs; those of plain classes go where their class goes. `turns`: in meta-training, classes
    turned by right angles are further classes. `stretch`: each recording is stretched in time onto
    the bins. `by_drawer`: no drawer stands in support and query of one task. `overlap`: share of
    meta-training and meta-validation tasks whose classes share parts (`data/episodes.py`).
    `crop`: (left, top, width, height) in sensor pixels, null for the whole sensor, or `auto`: the
    corpus's usual one (`data/corpora/__init__.py`), and the whole sensor where it has none.
    `sensor_size` (width, height), `time_unit`, `columns` and `sort` say of your own files what they
    do not say themselves (`data/readers/columns.py`).
    """

    corpus: str = "digits"
    classes: Literal["single", "double"] = "double"
    split: str = "auto"
    class_fractions: tuple[float, float, float] = (0.64, 0.16, 0.2)
    recording_fractions: tuple[float, float, float] = (0.64, 0.16, 0.2)
    crop: Crop = "auto"
    downsample: int = Field(2, ge=1, le=64)
    dt_us: int = Field(10_000, ge=1, le=10_000_000)
    bins: int = Field(10, ge=1, le=10_000)
    start_us: int = Field(0, ge=0, le=10_000_000_000)
    clip: int = Field(0, ge=0, le=255)
    stretch: bool = False
    turns: bool = False
    by_drawer: bool = False
    sensor_size: tuple[Side, Side] | None = None
    time_unit: Literal["us", "ms", "ns", "s"] = "us"
    columns: str | None = None
    sort: bool = False
    first_image: int = Field(1, ge=1)
    overlap: float = Field(0.0, ge=0, le=1)
    augment: AugmentConfig = AugmentConfig()
    simulated: SimulatedConfig = SimulatedConfig()

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        for name in ("recording_fractions", "class_fractions"):
            f = getattr(self, name)
            if min(f) <= 0 or abs(sum(f) - 1) > 1e-6:
                raise ValueError(f"{name} is {f}; expected three positive, summing to 1")
        if self.turns and self.classes == "double":
            raise ValueError("turns makes new plain classes; expected classes=single with it")
        return self
