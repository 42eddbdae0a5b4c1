-- What needs a server that was built with libxml.
CREATE TABLE hard.documents (x xml, xs xml[]);
INSERT INTO hard.documents VALUES ('<a b="c">  <d/> text é</a>', '{<a/>,NULL}'), ('content only, <b/> twice <b/>', '{}'), (NULL, NULL);
CREATE VIEW hard.elements AS SELECT xmlelement(name "e l", xmlattributes(1 AS a), x) AS e FROM hard.documents;
