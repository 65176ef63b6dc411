"""What a person tunes of the model and its training."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from schemas.features import Declaration, Fault, FeatureSpec
from schemas.located_yaml import FaultsError


class TowerSettings(Declaration):
    """The layers over the embeddings of each tower.

    Attributes:
        query: widths of the query tower's layers; all but the last are ReLU. The last is the embedding's width.
        item: the same of the item tower.
        dropout: the share of what a layer gives to the next one that a step of training leaves out, in [0, 1); the rest is scaled
            up. Embeddings, and the last layer's values, are left whole.
    """

    query: tuple[PositiveInt, ...] = Field(min_length=1)
    item: tuple[PositiveInt, ...] = Field(min_length=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _meet_in_one_space(self) -> Self:
        if self.query[-1] != self.item[-1]:
            reason = f"expected the query tower's last width, {self.query[-1]}, received {self.item[-1]}"
            raise FaultsError([(("item",), reason)])
        return self


class SoftmaxSettings(Declaration):
    """The loss; see `components.trainer.loss`.

    Attributes:
        correction: `logq` is the paper's; `none` is the plain softmax; `logq_positive_left_out` is RecSys 2025's.
        temperature: divides the inner product of the L2-normalised embeddings. The best one is another once the loss is corrected.
        learn_temperature: trains it, from that value on.
        uniform_negatives: items drawn uniformly from those of the catalogue that have been seen, which join each batch's; they show
            the model items that the stream seldom brings. 0 for none; as many as the batch is a good first choice.
        block_rows: rows of the batch whose logits are in memory at once; fewer take less memory, about 4 bytes a row and
            column.
        strength: of `logq`, in [0, 1]: what log Q is multiplied by before it is subtracted. 1 is the paper's, and finds most; less
            leaves rare items some of what the plain softmax, 0, spends on them.
        negatives_weight: leaves the positive out of the sum, and weighs the log of the negatives' sum against the positive's logit
            (BSL, ICDE 2024); 1.22 was best on Gowalla by its authors' logs. None for the softmax.
        top_share: weighs an interaction the more the closer its item is to the first of the catalogue (after SL@K, KDD 2025; see
            `components.trainer.loss.Top`): K over the number of items. None weighs all alike.
        top_temperature: of that weight; the smaller, the less is learnt of items that are far behind.
        same_user_negatives: whether what the same user took, in another row of the batch, is a negative of the row.
        new_item_boost: of a corrected loss: how many times as popular as the mean of the items like it an item without its id is
            taken to be (`schemas.features.Table.masked`). At 1 a new item stands where that mean stands, which is seldom among the
            first; more finds more of the new items and less of the others. benchmarks/README.md has the curve.
    """

    correction: Literal["none", "logq", "logq_positive_left_out"] = "logq"
    temperature: PositiveFloat = 0.05
    learn_temperature: bool = False
    uniform_negatives: NonNegativeInt = 0
    block_rows: PositiveInt = 512
    strength: float = Field(default=1.0, ge=0.0, le=1.0)
    negatives_weight: PositiveFloat | None = None
    top_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    top_temperature: PositiveFloat = 0.5
    same_user_negatives: bool = True
    new_item_boost: PositiveFloat = 1.5

    @model_validator(mode="after")
    def _weakens_a_correction(self) -> Self:
        if self.strength < 1.0 and self.correction != "logq":
            reason = f"expected correction logq, of which it is a share; received {self.correction}"
            raise FaultsError([(("strength",), reason)])
        if self.negatives_weight is not None and self.correction == "logq_positive_left_out":
            reason = "expected correction logq or none: logq_positive_left_out has a weight of its own"
            raise FaultsError([(("negatives_weight",), reason)])
        return self


class FrequencySettings(Declaration):
    """The estimator of how often an item occurs in a batch; see `components.trainer.frequency`.

    Attributes:
        buckets: H; 32 bytes each, for each hash. Several times the catalogue's items, or fewer with more hashes.
        hashes: m.
        alpha: how fast an estimate follows a change: it forgets over about 1 / alpha hits.
        initial_gap: steps; 1 / initial_gap is the estimate for what was never seen, and less once the stream is older than that.
        counting: `occurrences` for the expected count in a batch; `batches` for the probability of a hit, to compare.
    """

    buckets: PositiveInt = 1 << 20
    hashes: PositiveInt = 4
    alpha: float = Field(default=0.01, gt=0.0, le=1.0)
    initial_gap: PositiveFloat = 100.0
    counting: Literal["occurrences", "batches"] = "occurrences"


class StrategySettings(Declaration):
    """The devices that are trained on; see `components.trainer.strategies`.

    Attributes:
        kind: `one_device`; `mirrored` for several GPUs of a machine; `multi_worker_mirrored` for several machines that take each
            step together; `parameter_server` for tables larger than a machine, and workers that do not wait for each other;
            `tpu`.
        devices: of `mirrored`, such as `GPU:0`; all GPUs where none are named.
        shard_bytes: of `parameter_server`: a table is divided among the servers, but not into parts smaller than this.
        tpu: of `tpu`: its name or address; empty for the one that is attached.
    """

    kind: Literal["one_device", "mirrored", "multi_worker_mirrored", "parameter_server", "tpu"] = "one_device"
    devices: tuple[str, ...] = ()
    shard_bytes: PositiveInt = 1 << 20
    tpu: str = ""


class CatchUpSettings(Declaration):
    """What is another matter where there is no earlier model: a first run over many days is not a day's step.

    Attributes:
        epochs: passes over the window of a first run; None for those of any day.
        learning_rate: of a first run; None for that of any day.
    """

    epochs: PositiveInt | None = None
    learning_rate: PositiveFloat | None = None


class ScheduleSettings(Declaration):
    """How the learning rate changes over the steps of a run; each day begins anew.

    Attributes:
        kind: `constant`; `linear` or `cosine` falls from `learning_rate` to `end_share` of it at the last step.
        warmup_share: the share of the steps, at the beginning, over which it rises from nothing to `learning_rate`, in [0, 1).
        end_share: of `learning_rate`, where it falls.
    """

    kind: Literal["constant", "linear", "cosine"] = "constant"
    warmup_share: float = Field(default=0.0, ge=0.0, lt=1.0)
    end_share: float = Field(default=0.0, ge=0.0, le=1.0)


class EarlyStoppingSettings(Declaration):
    """When training ends before its epochs do: the model of the best epoch is kept, by recall on what is held out.

    The same interactions judge the model afterwards, which the choice among a few epochs flatters a little; what the next day says
    (`ndr report`) is free of it.

    Attributes:
        recall_at: K of the recall among the whole catalogue by which epochs are compared.
        patience: training ends when so many epochs in a row were no better than the best before.
        interactions: about so many of the held-out ones are ranked after each epoch; of a day with more, whole users are drawn.
    """

    recall_at: PositiveInt = 50
    patience: PositiveInt = 1
    interactions: PositiveInt = 10_000


class TrainerSettings(Declaration):
    """How the towers are trained.

    Attributes:
        towers: the towers' layers.
        strategy: the devices that are trained on.
        batch_size: interactions a step, of all devices together; each is a negative for the others.
        epochs: passes over the window's training split.
        catch_up: of a run that starts anew, its epochs and learning rate.
        optimizer: `adagrad` is the paper's; `rowwise_adagrad` keeps one number a row of a table, for large ones.
        learning_rate: of the optimizer; Adagrad's first step moves every weight by about as much, if it starts from nearly nothing.
        adagrad_start: what Adagrad's sums of squared gradients start from. From nearly nothing, the loss's scale has no say, and
            the first steps of a row are as large whether its item is popular or rare. Where rare items are learnt by heart, raise
            it, and the learning rate with it: until a row's own sum is as large, it moves by learning_rate / sqrt(adagrad_start)
            times its gradient.
        schedule: how the learning rate changes over a run's steps.
        weight_decay: the share of the towers' layers' weights that a step takes off, times the learning rate (decoupled, as
            AdamW's, ICLR 2019). Biases and embeddings are left alone. 0 for none.
        early_stopping: ends training when what is held out says so, on `one_device` or `mirrored`. None trains all epochs.
        softmax: the loss.
        frequency: the estimator that corrects it.
        warm_start: whether training goes on from the last blessed model of an earlier day. Without, every day starts anew.
        on_other_shape: what happens where that model has other features, widths or buckets: `refuse` stops the run and names them,
            `restart` trains a new model on a first run's window.
        kept_gib: where there are several epochs and the examples take at most so much memory, they are read once.
        mixed_precision: computes the towers' layers in bfloat16; weights, embeddings, loss and estimator stay float32. Worth it on
            GPUs and TPUs; see benchmarks/README.md.
        jit_compile: compiles the step by XLA. TPUs always do; see benchmarks/README.md for where it loses.
        checkpoint_steps: after so many steps what was learnt is written down; a run that is killed goes on from there.
        seed: of weights, of the order of examples, of draws and of hashes.
    """

    towers: TowerSettings
    strategy: StrategySettings = StrategySettings()
    batch_size: PositiveInt = 1024
    epochs: PositiveInt = 1
    catch_up: CatchUpSettings = CatchUpSettings()
    optimizer: Literal["adagrad", "rowwise_adagrad", "adam"] = "adagrad"
    learning_rate: PositiveFloat = 0.03
    adagrad_start: PositiveFloat = 1e-12
    schedule: ScheduleSettings = ScheduleSettings()
    weight_decay: NonNegativeFloat = 0.0
    early_stopping: EarlyStoppingSettings | None = None
    softmax: SoftmaxSettings = SoftmaxSettings()
    frequency: FrequencySettings = FrequencySettings()
    warm_start: bool = True
    on_other_shape: Literal["refuse", "restart"] = "refuse"
    kept_gib: NonNegativeFloat = 1.0
    mixed_precision: bool = False
    jit_compile: bool = False
    checkpoint_steps: PositiveInt = 500
    seed: int = Field(default=0, ge=0, lt=2**32)

    def faults(self, spec: FeatureSpec) -> list[Fault]:
        """What cannot be beside the features of a dataset."""
        if not spec.repeating:
            return []
        reason = f"not beside a history with `repeats: true` ({', '.join(spec.repeating)})"
        found: list[Fault] = []
        if not self.softmax.same_user_negatives:
            found.append(
                (("softmax", "same_user_negatives"), f"{reason}: copies of an item in a batch are of several users")
            )
        if self.jit_compile:
            found.append((("jit_compile",), f"{reason}: XLA lacks an operation of its loss"))
        if self.strategy.kind == "tpu":
            found.append((("strategy", "kind"), f"{reason}: XLA lacks an operation of its loss"))
        return found

    @model_validator(mode="after")
    def _can_stop_early(self) -> Self:
        if self.early_stopping is None:
            return self
        if self.strategy.kind not in ("one_device", "mirrored"):
            reason = f"expected strategy.kind one_device or mirrored, where one process knows all; received {self.strategy.kind}"
            raise FaultsError([(("early_stopping",), reason)])
        if max(self.epochs, self.catch_up.epochs or 1) == 1:
            raise FaultsError([(("early_stopping",), "expected more than one epoch, among which the best is kept")])
        return self

    def of_run(self, goes_on: bool) -> "TrainerSettings":
        """The settings of a run that goes on from an earlier model, or of one that starts anew."""
        return self if goes_on else self.model_copy(update=self.catch_up.model_dump(exclude_none=True))
