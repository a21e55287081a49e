"""polars.

Frames and series travel as Arrow data, which is made without polars' own threads (a forked child has none).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind

if TYPE_CHECKING:
    from nbcr.objects.sharing import Survey


class Frames(Kind):
    """polars and pyarrow pickle themselves; there is nothing in them that another name could change."""

    types = (
        "polars.dataframe.frame.DataFrame", "polars.lazyframe.frame.LazyFrame", "polars.series.series.Series",
        "polars.expr.expr.Expr", "pyarrow.lib._PandasConvertible", "pyarrow.lib.Array", "pyarrow.lib.ChunkedArray",
        "pyarrow.lib._Tabular", "pyarrow.lib.Buffer",
    )  # fmt: skip

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return ()


KINDS: tuple[Kind, ...] = (Frames(),)
