-- The case viewer's long texts, as they are.
SELECT id, clinical_history, teaching_points, findings FROM cases
