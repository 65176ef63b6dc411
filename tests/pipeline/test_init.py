"""`ndr init`: what it makes of files as people have them, and what it says where it cannot."""

import gzip
import random
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline import config
from pipeline.init.drafts import Draft, draft
from pipeline.init.groups import groups
from pipeline.init.profiles import profiles
from pipeline.init.roles import Declared, Known, share_repeated
from pipeline.init.tables import sampled
from schemas.errors import UserError
from schemas.features import (
    FeatureSpec,
    HistoryFeature,
    IdFeature,
    IdsFeature,
    LookedUpFeature,
    NumberFeature,
    RewardColumn,
    TextFeature,
    VectorFeature,
)

FIRST = datetime(2026, 11, 3, tzinfo=UTC)


def drafted(folder: Path, **declared: str) -> tuple[Draft, config.Config, FeatureSpec]:
    """What init writes, as a run loads it."""
    into = folder.parent / "dataset"
    written = draft(str(folder), into, "mine", Declared(**declared))
    assert written.paths == [into / "features.yaml", into / "mine.yaml"]
    loaded = config.load(into / "mine.yaml")
    return written, loaded, loaded.feature_spec()


def radio_of_the_docs(root: Path) -> Path:
    """Writes the radio of docs/own-data.md by that page's own program."""
    page = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text()
    (program,) = re.findall(r"python3 - <<'END'\n(import random\n.*?)END\n", page, re.DOTALL)
    (root / "var/data/radio").mkdir(parents=True)
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)
    return root / "var/data/radio"


def write_catalogue(folder: Path, number: int = 40, **more: Any) -> None:
    kinds = ["drama", "jazz", "news", "talk"]
    items = [f"i{n}" for n in range(number)]
    table = {"item_id": items, "kind": [kinds[n % 4] for n in range(number)], **more}
    parquet.write_table(pa.table(table), folder / "items.parquet")


def test_the_radio_of_the_docs(tmp_path: Path) -> None:
    written, loaded, spec = drafted(radio_of_the_docs(tmp_path))
    # 30,000 plays, one each 20.16 s: 604,800 s, which are the seven days from 2026-11-19.
    assert (written.day, loaded.data.catch_up_days) == (date(2026, 11, 25), 7)
    assert loaded.data.interactions.path.endswith("var/data/radio/plays.csv")
    keys = spec.interactions
    assert (keys.user, keys.item, keys.time, keys.time_unit, keys.reward) == (
        "listener",
        "track",
        "started_ms",
        "ms",
        "share_heard",
    )
    assert (spec.catalogue.item, spec.catalogue.title) == ("track", "song")
    artists, sound = spec.item["artists"], spec.item["sound"]
    assert isinstance(artists, IdsFeature)
    assert (artists.separator, artists.max_values) == (";", 2)
    assert isinstance(sound, VectorFeature)
    assert (sound.separator, sound.size) == (" ", 4)
    assert isinstance(spec.item["song"], TextFeature)
    assert isinstance(spec.item["seconds"], NumberFeature)
    assert isinstance(spec.query["device"], IdFeature)
    seed = spec.query["last_artists"]
    assert isinstance(seed, LookedUpFeature)
    assert (seed.of, seed.feature) == ("last_item", "artists")
    # Every guess says what it was guessed from.
    lines = written.paths[0].read_text().splitlines()
    assert any("ms since 1970, such as '1795046400000'" in line for line in lines if line.startswith("  time_unit: ms"))
    assert any("800 distinct values" in line for line in lines if line.startswith("  user: listener"))
    assert any("';' separates recurring values" in line for line in lines if line.startswith("  artists: {kind: ids"))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("features.yaml", "mine.yaml"):
        into = tmp_path / name.removesuffix(".yaml")
        into.mkdir()
        (into / name).write_text("mine\n")
        with pytest.raises(UserError, match=f"{name}: exists already, and nothing is overwritten"):
            draft(str(folder), into, "mine", Declared())
        assert [path.name for path in into.iterdir()] == [name]
        assert (into / name).read_text() == "mine\n"


def test_tsv_with_iso_times_gzipped_with_missing_users(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    rng = random.Random(2)
    lines = ["orderedAt\tcustomerId\tproductId\tchannel\trevenue"]
    for n in range(600):
        user = "NULL" if n % 6 == 0 else f"c{rng.randrange(50)}"
        at = FIRST + timedelta(hours=n)
        lines.append(
            f"{at:%Y-%m-%d %H:%M:%S}\t{user}\tp{rng.randrange(40)}\t{rng.choice(['app', 'web'])}\t{n % 90 + 1}.5"
        )
    (folder / "orders.tsv.gz").write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    goods = ["sku\tgroup\tsupplier\tstock"] + [f"p{n}\t{'abcd'[n % 4]}\tthe one\t{n % 9 - 4}" for n in range(40)]
    (folder / "goods.tsv").write_text("\n".join(goods) + "\n")
    written, loaded, spec = drafted(folder)
    keys, log = spec.interactions, loaded.data.interactions
    assert (keys.user, keys.item, keys.time, keys.time_unit) == ("customerId", "productId", "orderedAt", "iso")
    assert spec.catalogue.item == "sku"
    assert (log.format, log.delimiter, log.null_values) == ("csv", "\t", ("NULL",))
    # A sixth of the rows is without a user: that is declared to be no fault.
    assert [(each.column, each.missing) for each in log.where] == [("customerId", False)]
    # 600 hours from midnight are 25 days: the last is 3 + 24 = 27 November.
    assert (written.day, loaded.data.catch_up_days) == (date(2026, 11, 27), 25)
    # Of 600 values, 1.5 to 90.5 in turn, that at 0.95 * 599 = 569 in order: six full turns of 90 and 60 more, so the first 60
    # values come seven times (420), the others six: the (569 - 420) // 6 = 24th after them, 61.5 + 24.
    assert keys.reward == RewardColumn(column="revenue", scale="log", over=85.5, clip=True)
    # The supplier is one for all; the text says so rather than passing it over.
    assert set(spec.item) == {"sku", "group", "stock"}
    assert "# left out: supplier: one value in all rows" in written.paths[0].read_text()


def test_parquet_with_a_file_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    (folder / "views").mkdir(parents=True)
    rng = random.Random(3)
    # Three weeks from a Tuesday, without Sundays and without Friday the 13th.
    for n in range(21):
        start = FIRST + timedelta(days=n)
        if start.weekday() == 6 or start.day == 13:
            continue
        items = [rng.randrange(40) for _ in range(100)]
        table = {
            "viewed": pa.array([start + timedelta(minutes=m) for m in range(100)], pa.timestamp("us", "UTC")),
            "user_id": [rng.randrange(30) for _ in range(100)],
            "item_id": [f"i{item}" for item in items],
            "kind": [["drama", "jazz", "news", "talk"][item % 4] for item in items],
        }
        parquet.write_table(pa.table(table), folder / "views" / f"views_{start:%Y%m%d}.parquet")
    vectors = pa.array([[0.5 * n, 1.0, 2.0] for n in range(40)], pa.list_(pa.float32(), 3))
    write_catalogue(folder, embedding=vectors, tags=[["a", "b"], ["b"], ["c", "a"], []] * 10)
    written, loaded, spec = drafted(folder)
    assert loaded.data.interactions.path.endswith("lake/views/views_{YYYY}{MM}{DD}.parquet")
    # 3 November and 20 days.
    assert (loaded.data.first_day, written.day) == (date(2026, 11, 3), date(2026, 11, 23))
    assert loaded.data.closed == ("sunday", date(2026, 11, 13))
    keys = spec.interactions
    assert (keys.user, keys.item, keys.time, keys.reward) == ("user_id", "item_id", "viewed", None)
    vector, tags = spec.item["embedding"], spec.item["tags"]
    assert isinstance(vector, VectorFeature)
    assert vector.size == 3
    assert isinstance(tags, IdsFeature)
    assert tags.max_values == 2
    history = spec.query["history"]
    assert isinstance(history, HistoryFeature)
    assert history.last == 10
    # What the item is, is no feature of the query: it would give away what is to be predicted.
    assert "kind" in spec.item
    assert not any(getattr(feature, "column", None) == "kind" or name == "kind" for name, feature in spec.query.items())
    assert "left out: kind: 4 distinct values, such as" in written.paths[0].read_text()


def test_ambiguous_columns_are_named_and_can_be_declared(tmp_path: Path) -> None:
    folder = tmp_path / "post"
    folder.mkdir()
    write_catalogue(folder)
    rng = random.Random(4)
    rows = ["user,item_id,ordered_at,delivered_at"]
    for n in range(300):
        at = FIRST + timedelta(hours=n)
        rows.append(
            f"u{rng.randrange(30)},i{rng.randrange(40)},{at.isoformat()},{(at + timedelta(days=2)).isoformat()}"
        )
    (folder / "orders.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(UserError) as caught:
        drafted(folder)
    assert re.search(
        r"orders\.csv: looked for the time of an interaction, found ordered_at \(ISO 8601, such as '2026-11-03T00.*'\); "
        r"delivered_at \(.*\)\. Choose a column: --time COLUMN",
        str(caught.value),
    )
    assert not (tmp_path / "dataset").exists()
    _, _, spec = drafted(folder, time="ordered_at")
    assert spec.interactions.time == "ordered_at"


def test_wrong_declarations_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "post"
    folder.mkdir()
    write_catalogue(folder)
    rows = ["user,item_id,at"] + [f"u{n % 30},i{n % 40},{(FIRST + timedelta(hours=n)).isoformat()}" for n in range(300)]
    (folder / "orders.csv").write_text("\n".join(rows) + "\n")
    for declared, sentence in (
        ({"interactions": "order.csv"}, "--interactions order.csv: expected one of items.parquet, orders.csv"),
        ({"time": "user"}, "--time user: expected a time in orders.csv, found id: 30 distinct values"),
        ({"reward": "price"}, r"--reward price: expected a column of orders.csv \(user, item_id, at\)"),
    ):
        with pytest.raises(UserError, match=sentence):
            drafted(folder, **declared)


def test_an_empty_folder_and_one_without_a_log(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(
        UserError, match="looked for a log of interactions and a catalogue in CSV or Parquet, found no file"
    ):
        drafted(folder)
    (folder / "_SUCCESS").write_text("")
    with pytest.raises(UserError, match="found no file, except 1 whose names begin with _ or"):
        drafted(folder)
    write_catalogue(folder)
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    with pytest.raises(
        UserError, match=r"looked for a log of interactions: rows with a user(.|\n)*photo\.png has"
    ) as caught:
        drafted(folder)
    assert "items.parquet: item_id (id: 40 distinct values" in str(caught.value)


def test_a_log_alone_is_the_catalogue_too(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    # Half-way all titles change: they still say what the item is, and are no feature of the query.
    titles = [f"{'The' if n < 150 else 'Our'} {n % 40} of it" for n in range(300)]
    rows = ["user,product,brand,title,at"]
    rows += [f"u{n % 30},p{n % 40},b{n % 40 % 7},{titles[n]},{1_790_000_000 + 60 * n}" for n in range(300)]
    (folder / "sales.csv").write_text("\n".join(rows) + "\n")
    _, loaded, spec = drafted(folder)
    assert loaded.data.catalogue == "from_log"
    assert (spec.interactions.item, spec.catalogue.item, spec.catalogue.title) == ("product", "product", "title")
    # What every item has one value of is the item's. Of the 40 items every title is another, though not of the 300 rows: a text.
    assert {name: feature.kind for name, feature in spec.item.items()} == {
        "product": "id",
        "brand": "id",
        "title_1": "text",
    }
    assert "brand" not in spec.query
    (folder / "sales.csv").write_text("\n".join([rows[0].replace("product", "what"), *rows[1:]]) + "\n")
    with pytest.raises(UserError, match=r"or for a column of the log named like an item; found neither(.|\n)*--item"):
        draft(str(folder), tmp_path / "other", "mine", Declared())
    draft(str(folder), tmp_path / "other", "mine", Declared(item="what"))


def test_a_grocer_s_day_files_with_baskets_and_households(tmp_path: Path) -> None:
    folder = tmp_path / "grocer"
    (folder / "sales").mkdir(parents=True)
    header = "household_id,store_id,basket_id,product_id,quantity,sales_value,at"
    for n in range(10):
        day = FIRST + timedelta(days=n)
        baskets = 2 if n == 9 else 40  # the newest day has only begun
        rows = [
            f"{basket % 25},{300 + basket % 3},{n}{basket:02},{100 + (7 * basket + item) % 40},1,{item + 1}.5,"
            f"{day:%Y-%m-%dT10:}{basket:02}:00Z"
            for basket in range(baskets)
            for item in range(3)
        ]
        (folder / "sales" / f"{day:%Y-%m-%d}.csv").write_text("\n".join([header, *rows, ""]))
    goods = [f"{100 + n},{n % 5},{'AB'[n % 2]}" for n in range(40)]
    (folder / "products.csv").write_text("\n".join(["product_id,maker_id,department", *goods, ""]))
    people = [f"{n},{20 + n}-,{n % 4}" for n in range(8)]
    (folder / "households.csv").write_text("\n".join(["household_id,age,children", *people, ""]))
    written, loaded, spec = drafted(folder)
    assert written.others == {}
    # 3 November and nine days; the last seven of them begin with the 6th.
    assert (written.day, written.week) == (date(2026, 11, 12), date(2026, 11, 6))
    assert loaded.data.repeated == "add_up"
    # Of the 25 households every one buys some of the 40 products again. The ten items before would be three baskets.
    history = spec.query["history"]
    assert isinstance(history, HistoryFeature)
    assert (history.last, history.repeats, history.negatives) == (100, True, True)
    # Of 9 * 40 * 3 + 6 rows each third is 1.5, 2.5 and 3.5; more than 95 % have nothing above 3.5. What was paid is preferred.
    assert spec.interactions.reward == RewardColumn(column="sales_value", scale="log", over=3.5, clip=True)
    assert "quantity could be one too" in written.paths[0].read_text()
    # By the 2 baskets of the newest day alone, there would be two households and two shops.
    assert "25 distinct values in 1,086 rows" in written.paths[0].read_text()
    assert loaded.data.users is not None
    assert loaded.data.users.path.endswith("grocer/households.csv")
    assert spec.users is not None
    # Every household has an age of its own, which would be its name once more.
    assert (spec.users.user, spec.users.features) == ("household_id", ("children",))
    # Numbers that are called ids are ids; a basket's is another each time.
    assert isinstance(spec.item["maker_id"], IdFeature)
    assert isinstance(spec.query["store_id"], IdFeature)
    assert "basket_id" not in spec.query


@pytest.mark.parametrize(
    ("names", "path", "days"),
    [
        (["log/2026-11-24/a.csv", "log/2026-11-25/a.csv", "log/2026-11-25/b.csv"], "log/{YYYY}-{MM}-{DD}", 2),
        (["year=2026/month=11/day=24/h=1/a.csv"], "year={YYYY}/month={MM}/day={DD}/**", 1),
        (["2026/11/24/x.csv", "2026/11/25/x.csv"], "{YYYY}/{MM}/{DD}", 2),
        (["x.20261124.csv.gz", "x.20261125.csv.gz"], "x.{YYYY}{MM}{DD}.csv.gz", 2),
        (["x-2026-11-24-1.csv", "x-2026-11-24-2.csv"], "x-{YYYY}-{MM}-{DD}-*.csv", 1),
        (["part-00000.csv", "part-00001.csv"], "part-*.csv", 0),
        (["x-2026-13-24.csv"], "x-2026-13-24.csv", 0),
    ],
)
def test_names_of_files_are_one_path(tmp_path: Path, names: list[str], path: str, days: int) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a,b\n")
    (group,) = groups(str(tmp_path))
    assert (group.name, len(group.days), len(group.files)) == (path, days, len(names))


def test_tables_side_by_side_in_a_day_s_folder_are_two(tmp_path: Path) -> None:
    for day in ("2026-11-24", "2026-11-25"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "views.csv").write_text("user,item,at\n")
        (tmp_path / day / "items.csv").write_text("item,kind\n")
    assert [group.name for group in groups(str(tmp_path))] == [
        "{YYYY}-{MM}-{DD}/items.csv",
        "{YYYY}-{MM}-{DD}/views.csv",
    ]


def test_a_day_in_the_name_of_a_log_of_many_days_is_no_file_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    folder.mkdir()
    write_catalogue(folder)
    at = [(FIRST + timedelta(hours=n)).isoformat() for n in range(240)]
    rows = ["user,item_id,at,event"] + [f"u{n % 30},i{n % 40},{at[n]},{'view' if n % 7 else 'buy'}" for n in range(240)]
    (folder / "export-2026-11-20.csv").write_text("\n".join(rows) + "\n")
    written, loaded, spec = drafted(folder)
    # 240 hours are ten days, of which none is the 20th: the name tells when it was written.
    assert (written.day, loaded.data.catch_up_days) == (date(2026, 11, 12), 10)
    assert loaded.data.interactions.path.endswith("export-*-*-*.csv")
    assert not loaded.data.interactions.is_daily
    # What somebody will do is not known when something is recommended.
    assert "event" not in spec.query
    assert "weight the kinds with `event`" in written.paths[0].read_text()


def test_items_that_nobody_takes_again_need_not_be_scored_low(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    # 30 people come ten times, and take another of 40 products each time.
    rows = [f"u{n % 30},p{(n % 30 + n // 30) % 40},{1_790_000_000 + 60 * n}" for n in range(300)]
    (folder / "sales.csv").write_text("\n".join(["user,product,at", *rows, ""]))
    written, _, spec = drafted(folder)
    history = spec.query["history"]
    assert isinstance(history, HistoryFeature)
    assert (history.repeats, history.negatives) == (False, False)
    assert "only 0% of the items were taken again, so training need not score them low" in written.paths[0].read_text()


@pytest.mark.parametrize(("again", "share"), [("x", 1 / 3), ("z", 0.0)])
def test_the_share_of_repeated_items(tmp_path: Path, again: str, share: float) -> None:
    # u came twice, and took three items: x, y, and x again or z. v came once, and took x twice then: that is no coming again.
    rows = ["u,x,2026-11-03", "u,y,2026-11-03", f"u,{again},2026-11-04", "v,x,2026-11-03", "v,x,2026-11-03"]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,at", *rows, ""]))
    (group,) = groups(str(tmp_path))
    table = sampled(group)
    assert share_repeated(Known(table, profiles(table)), "user", "item", "at") == pytest.approx(share)


def test_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    write_catalogue(folder)
    rows = ["user,item_id,at"] + [f"u{n % 30},i{n % 40},{(FIRST + timedelta(hours=n)).isoformat()}" for n in range(240)]
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    (folder / "people.csv").write_text("user,age\n" + "".join(f"u{n},{20 + n % 9}\n" for n in range(30)))
    (folder / "places.csv").write_text("place,sells\nX,1\nY,2\n")
    program = "import sys; from pipeline import cli; import atexit; "
    program += "atexit.register(lambda: print('tensorflow' in sys.modules)); cli.main()"
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    command = [sys.executable, "-c", program, "init", str(folder)]
    answer = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        "wrote shop/features.yaml",
        "wrote shop/shop.yaml",
        "not used: places.csv: is neither the log, the catalogue nor a users' table",
        "Read their comments, then: ndr run --config shop/shop.yaml --date 2026-11-12",
        "Or run its last days one by one: ndr backfill --config shop/shop.yaml --from 2026-11-06 --to 2026-11-12",
        "False",
    ]
    again = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert (again.returncode, "nothing is overwritten" in again.stderr) == (1, True)
