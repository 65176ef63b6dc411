"""The tutorials of the site, by their own files and commands: what a newcomer types ends well."""

import json
import random
import re
import shlex
from pathlib import Path

import pandas as pd

from pipeline.datasets import completejourney
from tests.forks import PROJECT, Forks
from tests.pipeline.test_init import radio_of_the_docs

# A page's figures are another matter.
QUICK = ("--set", "trainer.epochs=1", "--set", "evaluator.below_popularity=bless")


def commands(page: str) -> list[list[str]]:
    """The commands of `ndr` that stand in lines of their own in a page."""
    return [shlex.split(line) for line in re.findall(r"^ *\.venv/bin/ndr (.*)$", page, flags=re.MULTILINE)]


def in_folder(folder: Path, words: list[str]) -> list[str]:
    """A command as it is in a folder, said from elsewhere."""
    return [str(folder / word) if word.startswith("var/") or word.endswith(".yaml") else word for word in words]


def ran(forks: Forks, folder: Path, words: list[str]) -> str:
    """Runs a command that works below a folder's `var`; what it said."""
    done = forks(*in_folder(folder, words), "--set", f"root={folder / 'var'}", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_own_data_in_ten_minutes(forks: Forks, tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "own-data.md").read_text()
    features, configuration = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)[:2]
    radio_of_the_docs(tmp_path)
    (tmp_path / "radio").mkdir()
    (tmp_path / "radio" / "features.yaml").write_text(features)
    (tmp_path / "radio" / "radio.yaml").write_text(configuration)
    runs = [words for words in commands(page) if words[0] == "run"]
    assert [words[-1] for words in runs] == ["2026-11-24", "2026-11-25"]
    first, second = (ran(forks, tmp_path, words) for words in runs)
    assert "No model could be judged by this day" in " ".join(first.split())
    assert "interactions of 2026-11-25 ranked by the model of 2026-11-24" in " ".join(second.split())


def test_a_grocers_year(forks: Forks, tmp_path: Path) -> None:
    """All but the first command, which fetches: a few days of a few households, written as that command writes them."""
    page = (PROJECT / "docs" / "grocer.md").read_text()
    fetch, init, backfill = commands(page)
    assert fetch == ["data", "completejourney"] and (init[0], backfill[0]) == ("init", "backfill")
    write_grocer(tmp_path / "var" / "data" / "completejourney")
    done = forks(*in_folder(tmp_path, init), "--into", str(tmp_path / "grocer"))
    assert done.returncode == 0 and "grocer.yaml" in done.stdout, done.stdout + done.stderr
    backfill[backfill.index("--to") + 1] = "2017-12-21"
    ran(forks, tmp_path, backfill)
    done = forks(
        "runs", "--json", "--config", str(tmp_path / "grocer" / "grocer.yaml"), "--set", f"root={tmp_path / 'var'}"
    )
    assert [run["date"] for run in json.loads(done.stdout) if run["state"] == "complete"] == [
        "2017-12-20",
        "2017-12-21",
    ]


def write_grocer(folder: Path) -> None:
    """Households that buy of one department each, on the days from 14 to 21 December."""
    chance = random.Random(0)
    sales = []
    for basket in range(1200):
        household = chance.randrange(80)
        time = pd.Timestamp(2017, 12, 14) + pd.Timedelta(seconds=chance.randrange(8 * 86_400))
        for product in {household % 6 * 20 + chance.randrange(20) for _ in range(3)}:
            sales.append((household, basket, product, 1, round(chance.uniform(1, 9), 2), time))
    columns = ["household_id", "basket_id", "product_id", "quantity", "sales_value", completejourney.TIME]
    (folder / "sales").mkdir(parents=True)
    completejourney.write_sales(pd.DataFrame(sales, columns=columns), folder / "sales")
    products = pd.DataFrame(
        {"product_id": range(120), "department": [f"department {product // 20}" for product in range(120)]}
    )
    products.to_csv(folder / "products.csv", index=False)
    households = pd.DataFrame(
        {"household_id": range(80), "age": [f"{25 + household % 4 * 10}-34" for household in range(80)]}
    )
    households.to_csv(folder / "households.csv", index=False)
