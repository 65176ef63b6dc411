"""Does warm start pay? Each day is ranked before anything is trained on it, by models that differ in what they were trained on.

Two streams: MovieLens, and invented logs that move and whose truth is known (`benchmarks.logs`). All interactions of a day with a
reward are ranked among the whole catalogue of that day by

- the model that was trained, day after day, through the day before, which is what would have been served; and the same as it was
  two days and a week before, and as it was before the first of the days;
- models that are trained from nothing: on the day before alone, on the seven days before, on all days so far;
- popularity over all days so far, that of the last seven days, what the user took before, and co-occurrence;
- on the invented logs, the truth: no scorer can be expected to find more.

The logs go through the steps that make examples of them; the rest of a day, a model's vocabularies, its transform, warm start and
training, is done in this process by the functions that the pipeline's steps call (`benchmarks.in_memory`), as a hundred models are
trained. Unlike a day of the pipeline, nothing is held out: a day is judged by the next one. Intervals are 95 %, from a jackknife
over users; what one scorer leads by is measured on the same interactions.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks import common
from benchmarks.baselines import COOCCURRENCE, POPULARITY, RECENT, TAKEN, Known
from benchmarks.days import EPOCH, MICROSECONDS_A_DAY, Interactions, Pipeline, ingest, interactions
from benchmarks.in_memory import Transform, analyse, embedded, trained
from benchmarks.intervals import groups_of, interval
from benchmarks.logs import FIRST_DAY, Log, Motion, World, milliseconds, write, write_catalogue
from components.decoded import decode, single
from components.evaluator.expectation import hit_probability
from components.evaluator.names import BASELINES
from components.evaluator.positions import positions
from components.evaluator.ranking import Ranks, rank_by_embedding
from components.trainer.model import TwoTowerModel
from components.trainer.settings import TrainerSettings
from pipeline import config as configuration
from pipeline.records import EARLIER_MODEL, Run
from schemas.features import CANDIDATE_ID, TIMESTAMP, FeatureSpec

MOVIELENS = Path(configuration.__file__).parent / "configs" / "movielens-daily.yaml"
MOVIELENS_FIRST, MOVIELENS_LOGS = date(1998, 3, 27), date(1997, 9, 20)
DAYS = 14
SERVICE = Path(__file__).parent / "service" / "service.yaml"
USERS, ITEMS, SEED = 2000, 4000, 0
MOTION = Motion(born=0.02, fresh_days=2.0, lifetime_days=25.0, taste_days=20.0)
LEARNT_BEFORE = 7  # invented days that the first model learns from
TUNED = ["trainer.batch_size=512", "trainer.epochs=3", "trainer.softmax.temperature=0.1"]
MODEL = "model"
SCORERS = (EARLIER_MODEL, *BASELINES)  # of `ndr runs`
CUTOFFS = (10, 50, 100)
SHOWN = 50
WARM, FROZEN, TRUTH = "warm start", "frozen before the first day", "the truth"
AGES = {WARM: 1, "2 days old": 2, "7 days old": 7}
WINDOWS: Mapping[str, int | None] = {"anew on 1 day": 1, "anew on 7 days": 7, "anew on all days": None}
ORDER = (*AGES, FROZEN, *WINDOWS, POPULARITY, RECENT, TAKEN, COOCCURRENCE, TRUTH)


class Stream(NamedTuple):
    """Days to judge.

    Attributes:
        name: the stream's.
        spec: the features.
        settings: the trainer's.
        examples: serialised tf.Examples of all interactions, those of the days before the first that is judged included.
        catalogue: serialised tf.Examples of all items that there are on any day.
        first: the first day that is judged.
        days: how many are judged.
        there: of [items] ids, which are in the catalogue of a day; by the day's number, from 1.
        truth: where the truth ranks a day's interactions, by the day's number; None where nobody knows it.
    """

    name: str
    spec: FeatureSpec
    settings: TrainerSettings
    examples: list[bytes]
    catalogue: list[bytes]
    first: date
    days: int
    there: Callable[[int, pa.Array], NDArray[np.bool_]]
    truth: Callable[[int, Interactions], Ranks] | None = None


class Judged(NamedTuple):
    """How the interactions of all days were ranked.

    Attributes:
        days: [interactions], the number of the day of each.
        groups: [interactions], of the users.
        hits: by scorer and cutoff [interactions], the chance that the item is among the first k; NaN on days without the scorer.
    """

    days: NDArray[np.int64]
    groups: NDArray[np.int64]
    hits: dict[str, dict[int, NDArray[np.float64]]]


def movielens(root: Path, data: Path, days: int) -> Stream:
    """MovieLens 100K, as `ndr data movielens` leaves it."""
    last = MOVIELENS_FIRST + timedelta(days=days - 1)
    settings = [
        f"data.interactions.path={data}/interactions/{{YYYY}}-{{MM}}-{{DD}}",
        f"data.catalogue.path={data}/catalogue/{{YYYY}}-{{MM}}-{{DD}}",
        f"data.window_days={(last - MOVIELENS_LOGS).days + 1}",
    ]
    config = configuration.load(MOVIELENS, settings)
    examples, catalogue = ingest(config, last, root / f"movielens-{last}")
    return Stream(
        "MovieLens", config.feature_spec(), config.trainer, examples, catalogue, MOVIELENS_FIRST, days,
        there=lambda _, ids: np.ones(len(ids), bool),
    )  # fmt: skip


def invented(root: Path, days: int, interactions_a_day: int) -> Stream:
    """Invent logs that move; the catalogue of a day has the items of that day."""
    whole = LEARNT_BEFORE + days
    world = World(USERS, ITEMS, whole, SEED, MOTION)
    place = root / f"invented-{days}-{interactions_a_day}"
    logs = write(world, [interactions_a_day] * whole, place / "logs")
    write_catalogue(world, np.arange(ITEMS), place / "logs" / "all")
    settings = [
        f"root={place / 'logs'}",
        "data.interactions.path=interactions/{YYYY}-{MM}-{DD}",
        "data.catalogue.path=all",
        f"data.first_day={FIRST_DAY}",
        f"data.window_days={whole}",
        *TUNED,
    ]
    config = configuration.load(SERVICE, settings)
    examples, catalogue = ingest(config, FIRST_DAY + timedelta(days=whole - 1), place / "examples")
    return Stream(
        "invented", config.feature_spec(), config.trainer, examples, catalogue,
        FIRST_DAY + timedelta(days=LEARNT_BEFORE), days,
        there=lambda number, ids: np.isin(
            ids.to_numpy(zero_copy_only=False).astype(str),
            [f"i{item}" for item in world.in_catalogue(LEARNT_BEFORE + number - 1)],
        ),
        truth=lambda number, asked: by_truth(world, LEARNT_BEFORE + number - 1, logs, asked),
    )  # fmt: skip


class Days:
    """A stream's days, each with what is asked and what is ranked.

    Args:
        stream: whose.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.ids = single(decode(stream.catalogue).column(CANDIDATE_ID)).cast(pa.binary())
        times = single(decode(stream.examples).column(TIMESTAMP)).to_numpy()
        # The steps write examples in an order of their own; in this one a seed is a model.
        order = sorted(range(len(times)), key=lambda row: (times[row], stream.examples[row]))
        self._examples, self._times = [stream.examples[row] for row in order], times[order]
        self._rewarded = interactions(stream.examples, stream.spec.history_feature)
        self.asked = [self.rewarded(number) for number in range(stream.days + 1)]
        self.there = [stream.there(number, self.ids) for number in range(stream.days + 1)]

    def start(self, number: int) -> int:
        """Return a day's first microsecond; of day 0, which has all that was before the first that is judged, that of 1970."""
        if not number:
            return 0
        return ((self._stream.first - EPOCH).days + number - 1) * MICROSECONDS_A_DAY

    def examples(self, since: int, until: int) -> list[bytes]:
        """Return the serialised examples between two times."""
        first, after = np.searchsorted(self._times, [since, until])
        return self._examples[first:after]

    def rewarded(self, number: int) -> Interactions:
        """Return a day's interactions with a reward."""
        times = self._rewarded.times
        return self._rewarded.chosen(np.flatnonzero((times >= self.start(number)) & (times < self.start(number + 1))))

    def ranks(self, number: int, model: TwoTowerModel, transform: Transform) -> Ranks:
        """Where a model ranks a day's items among those that are there."""
        there = self.there[number]
        items = [example for example, kept in zip(self._stream.catalogue, there, strict=True) if kept]
        asked = self.asked[number]
        true_rows = positions(pa.array(asked.items, pa.binary()), self.ids.filter(pa.array(there)))
        return rank_by_embedding(*embedded(model, transform(asked.examples), transform(items)), true_rows)


def judge(stream: Stream, anew_every: int = 1) -> Judged:
    """Train day after day, and rank each day with the models of the evening before.

    Args:
        stream: the days.
        anew_every: models are trained from nothing for the first day and every so many days.
    """
    days = Days(stream)
    found: list[dict[str, Ranks]] = [{} for _ in range(stream.days + 1)]
    known = Known(days.ids)
    with tempfile.TemporaryDirectory() as folder:
        base: str | None = None
        for evening in range(stream.days):
            asked, tomorrow = days.asked[evening], evening + 1
            known.add(asked.users, asked.items, asked.times, asked.histories)
            of_evening = f"{folder}/{evening}"
            model, transform = train(stream, days, days.start(evening), tomorrow, of_evening, base)
            base = f"{of_evening}/{MODEL}"
            for name, age in AGES.items():
                if evening + age <= stream.days:
                    found[evening + age][name] = days.ranks(evening + age, model, transform)
            if not evening:
                for number in range(1, stream.days + 1):
                    found[number][FROZEN] = days.ranks(number, model, transform)
            for name, window in WINDOWS.items() if evening % anew_every == 0 else ():
                since = days.start(tomorrow) - window * MICROSECONDS_A_DAY if window else 0
                model, transform = train(stream, days, since, tomorrow, f"{of_evening}/{name}", None)
                found[tomorrow][name] = days.ranks(tomorrow, model, transform)
            asked = days.asked[tomorrow]
            there = days.ids.filter(pa.array(days.there[tomorrow]))
            found[tomorrow] |= known.ranks(asked.users, asked.items, asked.histories, there, days.start(tomorrow))
            if stream.truth:
                found[tomorrow][TRUTH] = stream.truth(tomorrow, asked)
            shown = {name: f"{hit_probability(*each, SHOWN).mean():.4f}" for name, each in found[tomorrow].items()}
            print(f"{stream.name}, day {tomorrow}, {len(asked.items)} interactions: {shown}", flush=True)
    return together([(number, days.asked[number], found[number]) for number in range(1, stream.days + 1)])


def train(
    stream: Stream, days: Days, since: int, number: int, folder: str, base: str | None
) -> tuple[TwoTowerModel, Transform]:
    """Train on the interactions between a time and a day, from an earlier model or from scratch.

    Args:
        stream: says how.
        days: the stream's.
        since: microseconds since 1970-01-01.
        number: of the day, of which nothing is known yet.
        folder: destination of the vocabularies, and in MODEL of what the next training resumes from; another for each model, as
            TensorFlow shares lookup tables of the same file.
        base: the folder of the model that training resumes from; None where it starts anew.
    """
    examples = days.examples(since, days.start(number))
    span = days.start(number) // MICROSECONDS_A_DAY - 1
    analysis, kept = f"{folder}/analysis", f"{folder}/{MODEL}"
    analyse(stream.spec, examples, base, span, analysis)
    transform = Transform(stream.spec, analysis)
    inputs, items = transform(examples), transform(stream.catalogue)
    return trained(stream.spec, stream.settings, analysis, inputs, items, base, kept), transform


def by_truth(world: World, number: int, logs: Sequence[Log], asked: Interactions) -> Ranks:
    """Where the truth ranks a day's items.

    Args:
        world: of the logs.
        number: of the day in them.
        logs: all days'.
        asked: the day's interactions, in any order.
    """
    log = logs[number]
    above, tied = world.true_ranks(number, log)
    at = {
        (b"u%d" % user, b"i%d" % item, time): row
        for row, (user, item, time) in enumerate(
            zip(log.users.tolist(), log.items.tolist(), milliseconds(number, log).tolist(), strict=True)
        )
    }
    keys = zip(asked.users, asked.items, (asked.times // 1000).tolist(), strict=True)
    rows = np.array([at[key] for key in keys], np.int64)
    return Ranks(above[rows], tied[rows])


def together(found: Sequence[tuple[int, Interactions, Mapping[str, Ranks]]]) -> Judged:
    """Concatenate the days: for each the number, the interactions, and their ranks by scorer."""
    there = {name for *_, ranks in found for name in ranks}
    scorers = [name for name in ORDER if name in there]
    hits: dict[str, dict[int, NDArray[np.float64]]] = {
        scorer: {
            k: np.concatenate(
                [
                    hit_probability(*ranks[scorer], k) if scorer in ranks else np.full(len(asked.items), np.nan)
                    for _, asked, ranks in found
                ]
            )
            for k in CUTOFFS
        }
        for scorer in scorers
    }
    return Judged(
        np.concatenate([np.full(len(asked.items), number) for number, asked, _ in found]),
        groups_of(user for _, asked, _ in found for user in asked.users),
        hits,
    )


def figures(judged: Judged) -> list[dict[str, Any]]:
    """For each scorer and cutoff its recall, and what warm start leads it by on the interactions that both ranked."""
    rows = []
    for scorer, by_cutoff in judged.hits.items():
        for k, hits in by_cutoff.items():
            there = ~np.isnan(hits)
            lead = (judged.hits[WARM][k] - hits)[there]
            rows.append(
                {
                    "scorer": scorer,
                    "k": k,
                    "interactions": int(there.sum()),
                    "recall": interval(hits[there], judged.groups[there]),
                    "warm_start_lead": interval(lead, judged.groups[there]),
                }
            )
    return rows


def verdict(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where warm start pays, a sentence a scorer."""
    sentences = []
    for row in rows:
        if row["k"] != SHOWN or row["scorer"] in (WARM, TRUTH):
            continue
        lead, lower, upper = row["warm_start_lead"]
        word = "is better than" if lower > 0 else "is worse than" if upper < 0 else "cannot be told from"
        sentences.append(
            f"{name}: warm start {word} {row['scorer']}: {lead:+.4f} [{lower:+.4f}, {upper:+.4f}] of recall@{SHOWN}."
        )
    return sentences


def show(name: str, judged: Judged, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the tables."""
    by_day = []
    for number in np.unique(judged.days):
        of_day = judged.days == number
        recalls = [hits[SHOWN][of_day].mean() for hits in judged.hits.values()]
        by_day.append([str(number), str(of_day.sum()), *("" if np.isnan(r) else f"{r:.3f}" for r in recalls)])
    common.show(f"{name}: recall@{SHOWN} by day", ["day", "interactions", *judged.hits], by_day)
    cells = []
    for scorer in judged.hits:
        cell = [scorer]
        for row in (row for row in rows if row["scorer"] == scorer):
            (value, lower, upper), lead = row["recall"], row["warm_start_lead"]
            cell.append(f"{value:.4f} [{lower:.3f}, {upper:.3f}]")
            if row["k"] == SHOWN:
                cell += ["" if scorer == WARM else f"{lead[0]:+.4f} [{lead[1]:+.3f}, {lead[2]:+.3f}]"]
        cells.append([*cell, f"{row['interactions']:,}"])
    columns = [c for k in CUTOFFS for c in ([f"recall@{k}"] + (["warm start leads by"] if k == SHOWN else []))]
    common.show(f"{name}: all days, 95 % intervals over users", ["", *columns, "interactions"], cells)
    for sentence in verdict(name, rows):
        print(sentence)


def headline(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """recall@50 of each scorer, and what warm start leads it by."""
    found = {}
    for row in rows:
        if row["k"] == SHOWN:
            scorer = common.key(row["scorer"])
            found[f"{common.key(name)}_{scorer}"] = row["recall"][0]
            if row["scorer"] != WARM:
                found[f"{common.key(name)}_lead_over_{scorer}"] = row["warm_start_lead"][0]
    return found


def reported(runs: Iterable[Run], first: date, days: int) -> dict[str, float]:
    """recall@50 by scorer as runs of the pipeline report it of their next days: the mean over the interactions of all days.

    Args:
        runs: of several of one day the last counts.
        first: the first day.
        days: how many; those without a model to judge are left out, and scorers that are not there on every other one.
    """
    names = {str(first + timedelta(days=number)) for number in range(days)}
    of_days = {run.date: run.next_day for run in runs if run.date in names and run.next_day is not None}
    metric = f"recall_at_{SHOWN}"
    recalls = [
        {
            "model": of_day[metric],
            **{name: each[metric] for name, each in of_day.items() if name in SCORERS and metric in each},
        }
        for of_day in of_days.values()
    ]
    weights = [of_day["ranked"] for of_day in of_days.values()]
    kept = [name for name in (recalls[0] if recalls else {}) if all(name in each for each in recalls)]
    return {name: float(np.average([each[name] for each in recalls], weights=weights)) for name in kept}


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--root", type=Path, default=Path("var/benchmarks/warm_start"), help="of the examples")
    arguments.add_argument("--data", type=Path, default=Path("var/data/movielens"), help="of `ndr data movielens`")
    arguments.add_argument("--days", type=int, default=DAYS, help="that are judged, of each stream")
    arguments.add_argument(
        "--anew-every", type=int, default=1, help="days; models trained from nothing take most of the time"
    )
    arguments.add_argument("--interactions", type=int, default=10_000, help="of each invented day")
    arguments.add_argument("--streams", nargs="+", choices=["movielens", "invented"], default=["movielens", "invented"])
    arguments.add_argument(
        "--runs", type=Path, help="root of a backfill of MovieLens, whose own next days are shown too"
    )
    options = arguments.parse_args()
    root = options.root.absolute()
    made: Mapping[str, Callable[[], Stream]] = {
        "movielens": lambda: movielens(root, options.data.absolute(), options.days),
        "invented": lambda: invented(root, options.days, options.interactions),
    }
    kept: dict[str, list[dict[str, Any]]] = {}
    named: dict[str, float] = {}
    for name in options.streams:
        stream = made[name]()
        judged = judge(stream, options.anew_every)
        kept[stream.name] = rows = figures(judged)
        show(stream.name, judged, rows)
        named |= headline(stream.name, rows)
    if options.runs:
        pipeline = Pipeline(MOVIELENS, [f"root={options.runs.absolute()}"])
        of_runs = reported(pipeline.records.runs(), MOVIELENS_FIRST, options.days)
        rows_of_runs = [[name, f"{value:.4f}"] for name, value in of_runs.items()]
        common.show(
            f"MovieLens: recall@{SHOWN} of the next day as the pipeline reports it", ["", "recall"], rows_of_runs
        )
        named |= {f"pipeline_{name}": value for name, value in of_runs.items()}
    settings = {
        "days": options.days,
        "anew_every": options.anew_every,
        "interactions": options.interactions,
        "motion": MOTION.__dict__,
        "users": USERS,
        "items": ITEMS,
        "tuned": TUNED,
        "first": str(MOVIELENS_FIRST),
    }
    common.conclude(options.json, settings, kept, named)


if __name__ == "__main__":
    main()
