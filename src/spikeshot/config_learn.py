"""The part of the configuration that says how a task is learned: the inner loop, its rule."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of the configuration: immutable, with no unknown keys and finite numbers."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


class CreditConfig(Section):
    """Constants of the rules' credit (`learn/rules/presets.py`); each rule heeds its own.

    `freeze`: first layers that inner steps leave alone (rule `frozen`); `threshold` below which an
    output error changes nothing, and whether it is meta-learned (`soel`); `readout_seed` of the
    fixed random readouts of each layer (`decolle`); `last_steps`: time bins that credit looks back
    (`truncated`).
    """

    freeze: int = Field(1, ge=0, le=1000)
    threshold: float = Field(0.05, ge=0, lt=1)
    learn_threshold: bool = False
    readout_seed: int = Field(0, ge=0, lt=2**63)
    last_steps: int = Field(10, ge=1, le=10_000)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.learn_threshold and not self.threshold:
            raise ValueError("threshold is 0; expected above 0 where learn_threshold is true")
        return self


class LearnConfig(Section):
    """The inner loop: rule, step sizes (`rates`: fixed, one learned, one per tensor), steps.

    `test_steps`: inner steps at validation and evaluation (0: as many as in training); more of them
    cost little there, and a learner usually goes on to gain (Finn et al. 2017 train 5 and test 10).
    `readout_start`: the readout's parameters are `learned`, or made of the support's `prototypes`
    (`learn/rules/start.py`). `multi_step`: over so many first iterations the query loss after every
    inner step counts, ever less but after the last (0: that one alone). `first_order_until`: first
    share of the iterations whose meta-gradient is of first order (both: MAML++). `strategy` and
    `micro_batch` (query samples per pass, 0: all) trade memory for time and change no number but by
    rounding (`learn/meta_gradient.py`).
    """

    rule: str = "sgd"
    rate: float = Field(1.0, gt=0, le=1000)
    rates: Literal["fixed", "scalar", "tensor"] = "fixed"
    inner_steps: int = Field(1, ge=1, le=1000)
    test_steps: int = Field(0, ge=0, le=1000)
    meta_gradient: Literal["exact", "first_order", "reptile"] = "exact"
    readout_start: Literal["learned", "prototypes"] = "learned"
    multi_step: int = Field(0, ge=0)
    first_order_until: float = Field(0.0, ge=0, le=1)
    strategy: Literal["split", "remat", "double_backward"] = "split"
    micro_batch: int = Field(0, ge=0)
    credit: CreditConfig = CreditConfig()

    @model_validator(mode="after")
    def _reptile(self) -> Self:
        outer = (
            self.rates == "fixed",
            self.readout_start == "learned",
            not self.multi_step,
            not self.first_order_until,
        )
        if self.meta_gradient == "reptile" and not all(outer):
            raise ValueError(
                "meta_gradient 'reptile' learns no rates and sees no query loss; expected with it "
                "rates=fixed, readout_start=learned, multi_step=0 and first_order_until=0"
            )
        return self

    @property
    def steps_after_training(self) -> int:
        """Inner steps at validation and evaluation."""
        return self.test_steps or self.inner_steps
