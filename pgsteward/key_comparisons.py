"""How the two sides of a foreign key are compared: by its own operators, which a search_path may hide."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pgsteward import sql
from pgsteward.postgres import Connection, Part, as_written, compose


@dataclass(frozen=True, slots=True)
class Comparison:
    """One pair of columns.

    Attributes:
        referenced_cast: What stands behind the referenced column: a cast to what the operator takes.
        operator: With its schema.
        referring_cast: Behind the referring column; also the collation of the referenced one.
    """

    referenced_cast: str
    operator: str
    referring_cast: str

    def of(self, referenced: Part, referring: Part) -> Part:
        """Return that two columns are equal."""
        return compose(
            "{}{} {} {}{}",
            referenced,
            as_written(self.referenced_cast),
            as_written(self.operator),
            referring,
            as_written(self.referring_cast),
        )


def comparisons(connection: Connection, oids: Iterable[int]) -> Mapping[int, tuple[Comparison, ...]]:
    """Return for each foreign key, by OID, how its columns are compared, in their order."""
    found: dict[int, list[Comparison]] = defaultdict(list)
    for row in connection.rows(sql.load("key_comparisons"), {"oids": list(oids)}):
        found[row["oid"]].append(Comparison(row["referenced_cast"], row["operator"], row["referring_cast"]))
    return {oid: tuple(pairs) for oid, pairs in found.items()}
