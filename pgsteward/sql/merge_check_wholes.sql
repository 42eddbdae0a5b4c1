-- What differs still after a merge; rows have no key.
-- Parts: side, rows, s_row, l_row. For people, who run it or not.
SELECT (SELECT count(*)
          FROM (SELECT {s_row} FROM {side} AS s EXCEPT ALL SELECT {l_row} FROM {rows} AS l) AS x) AS missing,
       (SELECT count(*)
          FROM (SELECT {l_row} FROM {rows} AS l EXCEPT ALL SELECT {s_row} FROM {side} AS s) AS x) AS too_many;
