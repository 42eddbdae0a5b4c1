-- Rows of the copy that the live table has not, or not as often; rows have no key.
-- Parts: table, columns, overriding, values, side, rows, s_row, l_row. For people, who run it or not.
INSERT INTO {table} ({columns}){overriding}
SELECT {values}
  FROM (SELECT s.*,
               {s_row}                                    AS pgsteward_row,
               row_number() OVER (PARTITION BY {s_row})   AS pgsteward_number
          FROM {side} AS s) AS s
  LEFT JOIN (SELECT {l_row}  AS pgsteward_row,
                    count(*) AS pgsteward_count
               FROM {rows} AS l
              GROUP BY 1) AS l
         ON l.pgsteward_row = s.pgsteward_row
 WHERE s.pgsteward_number > coalesce(l.pgsteward_count, 0);
