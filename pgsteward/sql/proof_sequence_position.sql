-- Position of one sequence, labelled.
-- Parts: number (its place in the list), sequence (qualified name). Needs SELECT on it.
SELECT {number} AS number, s.last_value, s.is_called FROM {sequence} AS s
