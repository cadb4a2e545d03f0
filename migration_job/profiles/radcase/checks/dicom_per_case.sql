-- The series that a case offers.
SELECT d.case_id, c.title, d.modality, d.num_images, d.folder_name
  FROM dicom_series d JOIN cases c ON c.id = d.case_id
