-- Rows that both have and that differ.
-- Parts: rows, settings, side, same, differs. For people, who run it or not.
UPDATE {rows} AS l
   SET {settings}
  FROM {side} AS s
 WHERE {same}
   AND ({differs});
