"""The part of the configuration that says how a task is learned: the inner loop, its rule."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Rounding = Literal["nearest", "stochastic"]

RATES_OF_RULE = {"meta-sgd": "parameter", "maml++": "step"}  # `rates` of rules that learn their own
OF_RULES = ("rule", "readout_start", "prototype_gain", "multi_step", "weights", "updates", "device")
BEFORE_SIGN = ("momentum", "keep", "keep_which", "keep_back")  # `updates` that go with rule sign


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


class WeightsConfig(Section):
    """Weights on a fixed-point grid (`learn/rules/quantise.py`); `bits` 0: floating point.

    `where`: the parameters that a task starts from (`outer`), those after each inner step (`inner`)
    or `both`. `rounding` of inner steps, `place_rounding` of the start. `accumulate`: what rounding
    would lose is kept for later inner steps.
    """

    bits: int = Field(0, ge=0, le=16)
    bias_bits: int = Field(16, ge=0, le=16)
    where: Literal["none", "inner", "outer", "both"] = "both"
    rounding: Rounding = "nearest"
    place_rounding: Rounding = "nearest"
    scale: Literal["tensor", "channel"] = "tensor"
    power_of_two: bool = False
    fit: Literal["max", "mse"] = "mse"
    headroom: float = Field(1.0, gt=0, le=1000)
    readout_headroom: float = Field(4.0, gt=0, le=1000)
    clipped_gradient: bool = False
    accumulate: bool = False

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        for name in ("bits", "bias_bits"):
            if getattr(self, name) == 1:
                raise ValueError(f"{name} is 1; expected 2 to 16, or 0 for floating point")
        if self.accumulate and self.bits and self.where not in ("inner", "both"):
            raise ValueError(
                f"accumulate keeps what inner steps cannot write, but where is {self.where!r}; "
                "expected where=inner or both with it"
            )
        return self


class UpdatesConfig(Section):
    """Gradients before they become updates, in this order (`learn/rules/transform*.py`).

    `clip` (every number) and `clip_norm` (all together); `momentum`; `keep`, the share that is kept
    (`keep_which`, `keep_rescale`); `keep_back`, small ones are added up until they are above so
    many times the root mean square; then `levels`: `float`, `sign`, `ternary` (0 up to `threshold`
    times the root mean square) or whole numbers of `bits` bits. `size`: signs times the tensor's
    mean |g|, or 1. `derivative` of the levels in the meta-gradient. 0 (1 for `keep`) switches off.
    """

    clip: float = Field(0.0, ge=0)
    clip_norm: float = Field(0.0, ge=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    keep: float = Field(1.0, gt=0, le=1)
    keep_which: Literal["random", "largest"] = "random"
    keep_rescale: bool = False
    keep_back: float = Field(0.0, ge=0, le=1000)
    levels: Literal["float", "sign", "ternary", "bits"] = "float"
    threshold: float = Field(0.5, gt=0, le=1000)
    bits: int = Field(8, ge=2, le=16)
    rounding: Rounding = "nearest"
    size: Literal["mean", "one"] = "mean"
    derivative: Literal["straight_through", "zero"] = "straight_through"


class DeviceConfig(Section):
    """The device that holds the weights (`learn/rules/devices.py`); noises in half ranges.

    `asymmetry` of `linear`; `curvature` of `soft_bounds`; `alpha`, `beta`, `gamma` of
    `gokmen_haensch`; `table`, a CSV file with the columns up and down, whose pulses are whole by
    `rounding`. `variation` of the strength from device to device; noise of pulses (`sigma`; its
    default costs a learner that was not trained for it some points), of changed weights, of the
    start and of each forward pass.
    """

    model: Literal["none", "ideal", "linear", "soft_bounds", "gokmen_haensch", "table"] = "none"
    asymmetry: float = Field(0.5, gt=-1, lt=1)
    curvature: float = Field(1.0, ge=0, le=10)
    alpha: float = Field(1.0, gt=0, le=100)
    beta: float = Field(0.0, ge=-100, le=100)
    gamma: float = Field(-1.0, ge=-100, le=100)
    table: str = ""
    rounding: Rounding = "stochastic"
    variation: float = Field(0.0, ge=0, le=3)
    sigma: float = Field(1.0, ge=0, le=10)
    write_noise: float = Field(0.0, ge=0, le=1)
    place_noise: float = Field(0.0, ge=0, le=1)
    read_noise: float = Field(0.0, ge=0, le=1)
    headroom: float = Field(1.0, gt=0, le=1000)
    readout_headroom: float = Field(4.0, gt=0, le=1000)
    biases: bool = False

    @model_validator(mode="after")
    def _has_table(self) -> Self:
        if (self.model == "table") != bool(self.table):
            raise ValueError(
                f"table is {self.table!r} and model {self.model!r}; expected a CSV file where, and "
                "only where, model is 'table'"
            )
        return self


class LearnConfig(Section):
    """The inner loop: rule, step sizes, steps, and what they meet in hardware.

    `method`: how a task is learned: `maml` by the rule; else a baseline (`study/baselines/`): not
    at all (`none`), by prototypes of the features (`protonet`), by the nearest `centroid` of
    features that nothing trains, or by logistic regression, with an L2 `penalty`, on the features
    of a classifier of the training classes (`transfer`).

    `rates`: `fixed`, or learned: one (`scalar`), one per `tensor`, one per tensor and inner `step`,
    or one for every weight (`parameter`). Rules `meta-sgd` and `maml++` have their own, which is
    then the default and no other is taken; `sign` takes no other `updates` than come before signs.

    `inner_steps`: 0 only where the readout starts as prototypes, which are then all that a task
    teaches (ProtoNet, the limit of Proto-MAML). `test_steps`: inner steps at validation and
    evaluation (0: as many as in training); more of them cost little there, and a learner usually
    goes on to gain (Finn et al. 2017 train 5 and test 10). `readout_start`: the readout's
    parameters are `learned`, or made of the support's `prototypes` (`learn/rules/start.py`), whose
    learned gain starts at `prototype_gain`. `multi_step`: over so many first iterations the query
    loss after every inner step counts, ever less but after the last (0: that one alone).
    `first_order_until`: first share of the iterations whose meta-gradient is of first order (both
    are MAML++'s). `strategy` and
    `micro_batch` (query samples per pass, 0: all) trade memory for time and change no number but by
    rounding (`learn/meta_gradient.py`).
    """

    method: Literal["maml", "none", "protonet", "centroid", "transfer"] = "maml"
    penalty: float = Field(1.0, gt=0)
    rule: str = "sgd"
    rate: float = Field(1.0, gt=0, le=1000)
    rates: Literal["fixed", "scalar", "tensor", "step", "parameter"] = "fixed"
    inner_steps: int = Field(1, ge=0, le=1000)
    test_steps: int = Field(0, ge=0, le=1000)
    meta_gradient: Literal["exact", "first_order", "reptile"] = "exact"
    readout_start: Literal["learned", "prototypes"] = "learned"
    prototype_gain: float = Field(10.0, gt=0, le=1e6)
    multi_step: int = Field(0, ge=0)
    first_order_until: float = Field(0.0, ge=0, le=1)
    strategy: Literal["split", "remat", "double_backward"] = "split"
    micro_batch: int = Field(0, ge=0)
    credit: CreditConfig = CreditConfig()
    weights: WeightsConfig = WeightsConfig()
    updates: UpdatesConfig = UpdatesConfig()
    device: DeviceConfig = DeviceConfig()

    @model_validator(mode="before")
    @classmethod
    def _rates_of_rule(cls, raw: Any) -> Any:
        """Fill in the rates that follow from the rule, where none are given."""
        rule = raw.get("rule") if isinstance(raw, dict) else None
        if not isinstance(rule, str) or rule not in RATES_OF_RULE:
            return raw
        return {"rates": RATES_OF_RULE[rule]} | raw

    @model_validator(mode="after")
    def _rule(self) -> Self:
        own = RATES_OF_RULE.get(self.rule, self.rates)
        if self.rates != own:
            raise ValueError(
                f"rates is {self.rates!r}, but rule {self.rule!r} has rates of its own; expected "
                f"rates={own} with it, or rule=sgd"
            )
        plain = UpdatesConfig()
        for key in UpdatesConfig.model_fields:
            value = getattr(self.updates, key)
            if self.rule == "sign" and key not in BEFORE_SIGN and value != getattr(plain, key):
                raise ValueError(
                    f"updates.{key} is {value!r}, but rule 'sign' leaves nothing of a gradient but "
                    f"its sign; expected updates.{key} left at its default with it, or rule=sgd "
                    "with updates.levels=sign"
                )
        return self

    @model_validator(mode="after")
    def _inner_steps(self) -> Self:
        if not self.inner_steps and self.readout_start == "learned":
            raise ValueError(
                "inner_steps is 0, with which a task would teach nothing; expected 1 or more, or "
                "readout_start=prototypes with it"
            )
        if not self.inner_steps and self.multi_step:
            raise ValueError(
                f"multi_step is {self.multi_step}, which weighs losses after inner steps, but "
                "inner_steps is 0; expected multi_step=0 with it"
            )
        return self

    @model_validator(mode="after")
    def _baseline(self) -> Self:
        plain = LearnConfig.model_construct()
        wrong = [key for key in OF_RULES if getattr(self, key) != getattr(plain, key)]
        if self.meta_gradient == "reptile":
            wrong.append("meta_gradient")
        if self.method != "maml" and wrong:
            raise ValueError(
                f"method is {self.method!r}, a baseline that knows no {wrong[0]}; expected "
                f"{wrong[0]} left at its default, {getattr(plain, wrong[0])!r}, with it"
            )
        return self

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

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if self.device.model == "table" and self.weights.bits and self.weights.where != "none":
            raise ValueError(
                f"device.model is 'table', which has its own levels, but weights.bits is "
                f"{self.weights.bits}; expected weights.bits=0 with it"
            )
        return self

    @property
    def steps_after_training(self) -> int:
        """Inner steps at validation and evaluation: of a baseline one, or none."""
        if self.method != "maml":
            return int(self.method != "none")
        return self.test_steps or self.inner_steps
