-- The catalogue of collections, with their true number of cases.
SELECT k.id, k.name, k.collection_type, k.visibility, count(kc.case_id) AS cases
  FROM collections k LEFT JOIN collection_cases kc ON kc.collection_id = k.id
 GROUP BY k.id, k.name, k.collection_type, k.visibility
 ORDER BY k.name, k.id
