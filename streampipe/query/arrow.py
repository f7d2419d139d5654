"""``where`` conditions that are pyarrow expressions: evaluated by pyarrow, answered as the language's own are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.errors import ConfigError
from streampipe.query.column import Column

_NO_FIELD = re.compile(r"No match for FieldRef\.Name\((.+?)\)")


class ArrowExpression:
    """A pyarrow expression as a condition. It names columns as they are; one that there is not is unknown."""

    def __init__(self, expression: pc.Expression) -> None:
        self.expression = expression
        self.text = str(expression)

    def parts(self, table: pa.Table, missing: Callable[[str], None]) -> list[Column]:
        """Three-valued truth over a table, as one part. ``missing`` is told of each column that there is not.

        Raises:
            ConfigError: pyarrow cannot evaluate it.
        """
        while True:
            try:
                numbered = table.append_column("__row__", pa.array(np.arange(table.num_rows)))
                true = numbered.filter(self.expression).column("__row__").to_numpy()
                false = numbered.filter(~self.expression).column("__row__").to_numpy()
                break
            except pa.ArrowInvalid as error:
                name = _NO_FIELD.search(str(error))
                if name is None or name[1] in table.column_names:
                    raise ConfigError(f"where: {self.text} cannot be used: {error}") from error
                missing(name[1])
                table = table.append_column(name[1], pa.nulls(table.num_rows))
            except pa.ArrowException as error:
                raise ConfigError(f"where: {self.text} cannot be used: {error}") from error
        values, known = np.zeros(table.num_rows, bool), np.zeros(table.num_rows, bool)
        values[true] = known[true] = known[false] = True
        return [Column(values, known)]

    def reasons(self, parts: Sequence[Column], rows: np.ndarray) -> Counter[str]:
        """Why it is not true in rows (a mask): pyarrow does not say more than that it is not."""
        return Counter({f"{self.text} is not true": int(rows.sum())} if rows.any() else {})
