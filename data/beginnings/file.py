"""The beginnings of a store's rows in an Arrow file."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow
from datasets.arrow_writer import ArrowWriter

from data.beginnings.beginnings import Beginnings
from data.beginnings.find import BeginningFinder

FEATURES = datasets.Features({name: datasets.Value("int32") for name in ("rank", "common")})


def add_records(finder: BeginningFinder, table: pyarrow.Table) -> None:
    """Add the rows of a table with the columns ``ids`` and ``labels`` to a finder."""
    for chunk in table.select(["ids", "labels"]).to_batches():
        ids, labels = chunk.columns
        values = ids.flatten().to_numpy(), labels.flatten().to_numpy()
        offsets = ids.offsets.to_numpy()
        finder.add(*values, offsets - offsets[0])


def write_beginnings(beginnings: Beginnings, path: Path) -> None:
    """Write beginnings to a new file."""
    writer = ArrowWriter(features=FEATURES, path=str(path))
    columns = {"rank": beginnings.rank, "common": beginnings.common}
    writer.write_table(pyarrow.table(columns, FEATURES.arrow_schema))
    writer.finalize()


def read_beginnings(path: Path) -> Beginnings:
    """Read what ``write_beginnings`` wrote."""
    table = datasets.Dataset.from_file(str(path)).data
    rank, common = (np.asarray(table.column(name).to_numpy()) for name in FEATURES)
    return Beginnings.make(rank, common)
