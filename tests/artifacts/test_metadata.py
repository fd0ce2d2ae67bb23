"""Metadata as numbers: hand-encoded rows, what counts as missing, and what is never looked at."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from skinlesion.artifacts.patients import MISSING, SITES, WIDTH, encode_metadata
from skinlesion.base.errors import PipelineError
from skinlesion.data.sample import sample
from skinlesion.model.metadata import MetadataDropout


def frame(rows: list[tuple[object, object, object]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["age", "sex", "localization"]).astype({"age": "float64"})


def row(*ones: int, age: float = 0.0) -> list[float]:
    """An encoding with a scaled age and ones in some columns."""
    encoded = [0.0] * 20
    encoded[0] = age
    for column in ones:
        encoded[column] = 1.0
    return encoded


def test_rows_by_hand() -> None:
    rows = [(70, "female", "abdomen"), (45, "male", "upper extremity"), (None, "unknown", "unknown"), (50, "male", "back")]
    encoded = encode_metadata(frame(rows))
    assert encoded.dtype == np.float32 and encoded.shape == (4, WIDTH) == (4, 20)
    wanted = [row(1, 2, 5, age=1.0), row(1, 3, 18, age=-0.25), row(4, 19), row(1, 3, 7)]
    np.testing.assert_array_equal(encoded, np.array(wanted, dtype=np.float32))
    np.testing.assert_array_equal(MISSING, encoded[2])


def test_every_spelling_of_missing_is_one(caplog: pytest.LogCaptureFixture) -> None:
    encoded = encode_metadata(frame([(None, "unknown", ""), (np.nan, "", None), (float("nan"), None, np.nan)]))
    np.testing.assert_array_equal(encoded, np.tile(MISSING, (3, 1)))
    assert not caplog.records
    assert encode_metadata(frame([])).shape == (0, WIDTH)


def test_what_is_not_in_the_vocabulary_counts_as_missing_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        encoded = encode_metadata(frame([(999, "other", "elbow"), (-1, "male", "knee"), (40, "female", "elbow")]))
    np.testing.assert_array_equal(encoded[0], MISSING)
    np.testing.assert_array_equal(encoded[1], np.array(row(3, 19), dtype=np.float32))
    messages = " | ".join(record.getMessage() for record in caplog.records)
    assert "age -1.0, 999.0 is not known" in messages
    assert "sex other is not known" in messages
    assert "localization elbow, knee is not known" in messages


def test_the_vocabulary_holds_sample_and_data_set(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> None:
    sites = (*sample.SITES, *sample.RARE_SITES)
    encode_metadata(frame([(50, "male", site) for site in sites]))
    assert not caplog.records
    folder = request.getfixturevalue("ham10000")
    real = pd.read_csv(folder / "HAM10000_metadata.csv")
    encoded = encode_metadata(real)
    assert not caplog.records
    assert set(real["localization"]) == {*SITES, "unknown"}
    assert encoded[:, 1].sum() == 10015 - 57 and encoded[:, 4].sum() == 57 and encoded[:, 19].sum() == 234
    known = encoded[:, 1] == 1
    assert abs(encoded[known, 0].mean()) < 0.2 and 0.7 < encoded[known, 0].std() < 1.1


def test_how_a_diagnosis_was_made_is_never_looked_at(metadata: pd.DataFrame) -> None:
    wanted = encode_metadata(metadata)
    np.testing.assert_array_equal(encode_metadata(metadata.assign(dx_type="confocal")), wanted)
    np.testing.assert_array_equal(encode_metadata(metadata.drop(columns="dx_type")), wanted)
    np.testing.assert_array_equal(encode_metadata(metadata[["age", "sex", "localization"]]), wanted)


def test_a_list_without_the_columns_is_refused(metadata: pd.DataFrame) -> None:
    with pytest.raises(PipelineError, match=r"no column age and no sex, which .* or set train.metadata=false"):
        encode_metadata(metadata.drop(columns=["age", "sex"]))


def test_dropout_takes_whole_fields_each_on_its_own() -> None:
    known = torch.from_numpy(encode_metadata(frame([(70, "female", "scalp")] * 20_000)))
    missing = torch.from_numpy(MISSING)
    layer = MetadataDropout(0.25)
    torch.manual_seed(0)
    dropped = layer(known)
    lost = []
    for field in (slice(0, 2), slice(2, 5), slice(5, 20)):
        kept, gone = ((dropped[:, field] == values).all(dim=1) for values in (known[0, field], missing[field]))
        assert torch.equal(kept, ~gone)  # a field is whole or missing, nothing between
        assert float(gone.float().mean()) == pytest.approx(0.25, abs=0.015)
        lost.append(gone)
    assert float((lost[0] & lost[1]).float().mean()) == pytest.approx(0.25**2, abs=0.01)
    assert float((lost[1] & lost[2]).float().mean()) == pytest.approx(0.25**2, abs=0.01)
    torch.manual_seed(0)
    assert torch.equal(layer(known), dropped)  # draws from torch's default generator
    assert torch.equal(layer.eval()(known), known)
    assert torch.equal(MetadataDropout(0.0)(known), known)
    assert not layer.state_dict()
