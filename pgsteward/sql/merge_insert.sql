-- Rows of the copy whose key the live table has not.
-- Parts: table, columns, overriding, values, side, rows, same. For people, who run it or not.
INSERT INTO {table} ({columns}){overriding}
SELECT {values}
  FROM {side} AS s
 WHERE NOT EXISTS (SELECT FROM {rows} AS l WHERE {same});
