"""Computes the weight of an interaction in training, from the columns of its reward and of its kind of event."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.example_gen.columns import EVENT, OVER
from components.example_gen.ways_out import OUTSIDE
from schemas.features import REWARD, InteractionColumns

NO_WEIGHT = "an event that has no weight"
NOT_ABOVE = "not above 0"


@dataclass(frozen=True)
class Rewarded:
    """The rewards of rows.

    Attributes:
        values: [rows] float32 in [0, 1] without faults.
        faults: by the name of the faulty column and the reason, the mask of rows.
        weighs_nothing: [rows], whether the kind of event has weight 0, so that the row is filtered.
    """

    values: pa.Array
    faults: dict[tuple[str, str], NDArray[np.bool_]]
    weighs_nothing: NDArray[np.bool_]


def rewarded(keys: InteractionColumns, values: dict[str, pa.Array], rows: int) -> Rewarded:
    """Compute the rewards of rows from their converted columns REWARD, OVER and EVENT, as far as declared."""
    faults: dict[tuple[str, str], NDArray[np.bool_]] = {}
    rewards = np.ones(rows)
    if REWARD in values:
        rewards = values[REWARD].fill_null(0.0).to_numpy(zero_copy_only=False).astype(np.float64)
        rule = keys.reward_rule
        over = values[OVER].fill_null(1.0).to_numpy(zero_copy_only=False) if OVER in values else np.float64(rule.whole)
        is_positive = np.broadcast_to(over > 0.0, rows)
        if OVER in values:
            faults[OVER, NOT_ABOVE] = ~is_positive
        with np.errstate(all="ignore"):  # results of faulty rows do not matter
            rewards = np.log1p(rewards) / np.log1p(over) if rule.scale == "log" else rewards / over
        outside = (rewards < 0.0) | (rewards > 1.0) & (not rule.clip) | np.isnan(rewards)
        faults[REWARD, OUTSIDE] = outside & is_positive
        rewards = np.clip(np.where(np.isnan(rewards), 0.0, rewards), 0.0, 1.0)
    nothing = np.zeros(rows, bool)
    if keys.event:
        kinds = pc.index_in(values[EVENT], value_set=pa.array([kind.encode() for kind in keys.event.weights]))
        is_known = pc.is_valid(kinds).to_numpy(zero_copy_only=False)
        faults[EVENT, NO_WEIGHT] = ~is_known & pc.is_valid(values[EVENT]).to_numpy(zero_copy_only=False)
        weights = np.array(list(keys.event.weights.values()))[kinds.fill_null(0).to_numpy(zero_copy_only=False)]
        nothing = is_known & (weights == 0.0) & (not keys.event.zero_in_history)
        rewards = rewards * weights
    return Rewarded(pa.array(rewards.astype(np.float32)), faults, nothing)
