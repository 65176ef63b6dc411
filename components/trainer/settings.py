"""Settings of the model and its training."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from schemas.declaration import Declaration, Fault
from schemas.features import FeatureSpec
from schemas.located_yaml import FaultsError


class TowerSettings(Declaration):
    """The layers over the embeddings of each tower.

    Attributes:
        query: widths of the query tower's layers; all but the last are ReLU. The last is the embedding's width. Without layers the
            tower's features side by side are the embedding: where each tower has one id, that is matrix factorisation.
        item: the same for the item tower, which ends at the same width.
        dropout: the share of a hidden layer's outputs that a training step drops, in [0, 1); the rest is scaled up. Embeddings and
            the last layer's values are never dropped.
    """

    query: tuple[PositiveInt, ...]
    item: tuple[PositiveInt, ...]
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    def ends(self, spec: FeatureSpec) -> tuple[int, int]:
        """Return the widths of the embeddings of queries and of items."""
        of_query = self.query or (spec.width(spec.query_inputs),)
        of_item = self.item or (spec.width(spec.item),)
        return of_query[-1], of_item[-1]


class SoftmaxSettings(Declaration):
    """The loss; see `components.trainer.loss`.

    Attributes:
        correction: `logq` is the paper's; `none` is the plain softmax; `logq_positive_left_out` is RecSys 2025's.
        temperature: divides the inner product of the L2-normalised embeddings. The best value changes when the loss is corrected.
        learn_temperature: whether to train it, starting from that value.
        uniform_negatives: the number of items, drawn uniformly from the catalogue's seen items, that are added to each batch as
            negatives; they show the model items that are rare in the stream. 0 for none; the batch size is a good first choice.
        in_batch_negatives: whether the batch's other items are negatives. Without them the loss is that of a sample of the
            catalogue, which nothing corrects and popular items profit from; with `negatives_weight: 1`, published matrix
            factorisations'.
        block_rows: rows of the batch whose logits are in memory at once; fewer take less memory, about 4 bytes per row and
            column.
        strength: for `logq`, in [0, 1]: the factor of log Q before it is subtracted. 1 is the paper's, and has the best recall;
            less trades recall of popular items less against rare ones; 0 is the plain softmax.
        negatives_weight: leaves the positive out of the sum, and weighs the log of the negatives' sum against the positive's logit
            (BSL, ICDE 2024); 1.22 was best on Gowalla by its authors' logs. None for the softmax.
        top_share: gives an interaction more weight the closer its item is to the first of the catalogue (after SL@K, KDD 2025; see
            `components.trainer.loss.Top`): K / items. None for equal weights.
        top_temperature: of that weight; the smaller, the less is learnt from items far behind.
        same_user_negatives: whether other positives of the row's user in the batch are negatives of the row.
        new_item_boost: for a corrected loss: the assumed popularity of an item without its id, as a multiple of the mean of similar
            items (`schemas.features.Table.masked`). At 1 a new item scores like that mean, which is seldom among the first; more
            finds more of the new items and fewer of the others. benchmarks/README.md has the curve.
    """

    correction: Literal["none", "logq", "logq_positive_left_out"] = "logq"
    temperature: PositiveFloat = 0.05
    learn_temperature: bool = False
    uniform_negatives: NonNegativeInt = 0
    in_batch_negatives: bool = True
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
            reason = f"expected correction logq, which strength is a share of; received {self.correction}"
            raise FaultsError([(("strength",), reason)])
        if self.negatives_weight is not None and self.correction == "logq_positive_left_out":
            reason = "expected correction logq or none: logq_positive_left_out has a weight of its own"
            raise FaultsError([(("negatives_weight",), reason)])
        if not self.in_batch_negatives and not self.uniform_negatives:
            raise FaultsError([(("uniform_negatives",), "expected at least 1 without in_batch_negatives, received 0")])
        return self


class FrequencySettings(Declaration):
    """The estimator of how often an item occurs in a batch; see `components.trainer.frequency`.

    Attributes:
        buckets: H; each takes 32 bytes for each hash. Several times the number of items, or fewer with more hashes.
        hashes: m.
        alpha: how fast an estimate follows a change: it forgets over about 1 / alpha hits.
        initial_gap: in steps; 1 / initial_gap is the estimate for unseen items, and less once the stream is older than that.
        counting: `occurrences` for the expected count in a batch; `batches` for the probability of a hit, for comparison.
    """

    buckets: PositiveInt = 1 << 20
    hashes: PositiveInt = 4
    alpha: float = Field(default=0.01, gt=0.0, le=1.0)
    initial_gap: PositiveFloat = 100.0
    counting: Literal["occurrences", "batches"] = "occurrences"


class StrategySettings(Declaration):
    """The devices to train on; see `components.trainer.strategies`.

    Attributes:
        kind: `one_device`; `mirrored` for several GPUs of a machine; `multi_worker_mirrored` for several machines that take each
            step together; `parameter_server` for tables larger than a machine, and workers that do not wait for each other;
            `tpu`.
        devices: for `mirrored`, such as `GPU:0`; by default all GPUs.
        shard_bytes: for `parameter_server`: tables are divided among the servers, into shards of at least this size.
        tpu: for `tpu`: its name or address; empty for the attached one.
    """

    kind: Literal["one_device", "mirrored", "multi_worker_mirrored", "parameter_server", "tpu"] = "one_device"
    devices: tuple[str, ...] = ()
    shard_bytes: PositiveInt = 1 << 20
    tpu: str = ""


class CatchUpSettings(Declaration):
    """Settings for a run without an earlier model: a first run over many days differs from a daily one.

    Attributes:
        epochs: passes over the window of a first run; None for the daily setting.
        learning_rate: of a first run; None for the daily setting.
    """

    epochs: PositiveInt | None = None
    learning_rate: PositiveFloat | None = None


class ScheduleSettings(Declaration):
    """How the learning rate changes over the steps of a run; each day starts again.

    Attributes:
        kind: `constant`; `linear` or `cosine` falls from `learning_rate` to `end_share` of it at the last step.
        warmup_share: the share of the steps, at the beginning, in which it rises from 0 to `learning_rate`, in [0, 1).
        end_share: the share of `learning_rate` at the end, if it falls.
    """

    kind: Literal["constant", "linear", "cosine"] = "constant"
    warmup_share: float = Field(default=0.0, ge=0.0, lt=1.0)
    end_share: float = Field(default=0.0, ge=0.0, le=1.0)


class EarlyStoppingSettings(Declaration):
    """Ends training before all epochs, and keeps the model of the best epoch, by recall on held-out interactions.

    The same interactions evaluate the model later, so the choice among a few epochs biases that slightly upwards; the next day's
    evaluation (`ndr report`) is unbiased.

    Attributes:
        recall_at: K of the recall among the whole catalogue that compares epochs.
        patience: training ends after this many consecutive epochs without an improvement.
        interactions: about the number of held-out interactions to rank after each epoch; if the day has more, whole users are
            drawn.
    """

    recall_at: PositiveInt = 50
    patience: PositiveInt = 1
    interactions: PositiveInt = 10_000


class TrainerSettings(Declaration):
    """How the towers are trained.

    Attributes:
        towers: the towers' layers.
        strategy: the devices to train on.
        batch_size: interactions per step, over all devices; each is a negative for the others.
        epochs: passes over the window's training split.
        catch_up: epochs and learning rate of a run that starts from scratch.
        optimizer: `adagrad` is the paper's; `rowwise_adagrad` keeps one number for each row of a table, for large ones.
        learning_rate: of the optimizer; Adagrad's first step moves every weight by about this much, if its sums start near zero.
        adagrad_start: the initial value of Adagrad's sums of squared gradients. Near zero, the loss's scale has no effect, and
            the first steps of a row are equally large for popular and rare items. If rare items are overfitted, raise it, and the
            learning rate with it: until a row's own sum reaches it, the row moves by learning_rate / sqrt(adagrad_start) times its
            gradient, which falls as the batch grows: for a batch twice as large divide it by four. `ndr init` drafts 1e-5.
        schedule: how the learning rate changes over a run's steps.
        weight_decay: the share of the towers' dense weights that a step removes, times the learning rate (decoupled, as in
            AdamW, ICLR 2019). Biases and embeddings do not decay. 0 for none.
        early_stopping: ends training by held-out recall, on `one_device` or `mirrored`. None trains all epochs.
        softmax: the loss.
        frequency: the estimator that corrects it.
        warm_start: whether training continues from the last blessed model of an earlier day, or every day starts from scratch.
        on_other_shape: what happens if that model has other features, widths or buckets: `refuse` stops the run and names them,
            `restart` trains a new model on a first run's window.
        kept_gib: with several epochs, examples of at most this size in memory are read only once.
        mixed_precision: computes the towers' layers in bfloat16; weights, embeddings, loss and estimator stay float32. Worthwhile
            on GPUs and TPUs; see benchmarks/README.md.
        jit_compile: compiles the step with XLA. TPUs always do; benchmarks/README.md shows where it loses.
        checkpoint_steps: the number of steps between checkpoints; a killed run resumes from the last.
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
        """List settings that contradict a dataset's features."""
        faults: list[Fault] = []
        of_query, of_item = self.towers.ends(spec)
        if of_query != of_item:
            features = (
                "" if self.towers.query and self.towers.item else " (without layers, that of its features side by side)"
            )
            faults.append(
                (("towers", "item"), f"expected the query tower's last width, {of_query}, received {of_item}{features}")
            )
        histories = [*spec.repeating] or spec.not_negatives
        if not histories:
            return faults
        declared = "`repeats: true`" if spec.repeating else "`negatives: false`"
        reason = f"cannot be combined with a history with {declared} ({', '.join(histories)})"
        if not self.softmax.same_user_negatives:
            faults.append(
                (("softmax", "same_user_negatives"), f"{reason}: copies of an item in a batch belong to several users")
            )
        if self.jit_compile:
            faults.append((("jit_compile",), f"{reason}: XLA lacks an operation of its loss"))
        if self.strategy.kind == "tpu":
            faults.append((("strategy", "kind"), f"{reason}: XLA lacks an operation of its loss"))
        return faults

    @model_validator(mode="after")
    def _can_stop_early(self) -> Self:
        if self.early_stopping is None:
            return self
        if self.strategy.kind not in ("one_device", "mirrored"):
            reason = f"expected strategy.kind one_device or mirrored, with one process; received {self.strategy.kind}"
            raise FaultsError([(("early_stopping",), reason)])
        if max(self.epochs, self.catch_up.epochs or 1) == 1:
            raise FaultsError([(("early_stopping",), "expected more than one epoch, to keep the best of")])
        return self

    def of_run(self, goes_on: bool) -> "TrainerSettings":
        """Return the settings of a run that continues from an earlier model, or of one that starts from scratch."""
        return self if goes_on else self.model_copy(update=self.catch_up.model_dump(exclude_none=True))
