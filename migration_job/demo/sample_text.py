"""The vocabulary of the made-up database: plausible radiology, no real person's data."""

from __future__ import annotations

MODALITIES = ("CT", "MRI", "X-Ray", "Ultrasound", "Mammography", "Fluoroscopy", "PET-CT", "NM")
BODY_PARTS = ("Chest", "Abdomen", "Head", "Spine", "MSK", "Pelvis", "Breast", "Cardiac", "Neck")
DIAGNOSES = (
    "Tension pneumothorax",
    "Acute appendicitis",
    "Subdural haematoma",
    "Scaphoid fracture",
    "Pulmonary embolism",
    "Ischaemic stroke, left MCA",
    "Ménière's disease",
    "Small bowel obstruction",
    "Ewing’s sarcoma",
    "Budd–Chiari syndrome",
    "Sjögren's parotitis",
    "Aortic dissection, type A",
    "Grade II/III rotator cuff tear",
    "Perforated viscus",
    "Takayasu arteritis (高安動脈炎)",
    "Normal study",
)
FINDINGS = (
    "• Free air below the diaphragm\n• No fluid level",
    "• Hyperdense MCA sign\n• Loss of the insular ribbon",
    "• Filling defect in the right main artery\t(3 × 12 mm)",
    "• Fat stranding; wall > 6 mm\n• Appendicolith",
    "Path: C:\\PACS\\export\nNo acute abnormality.",
    "• Cortical break, 15° angulation\n• \\N is not null, \\. is not the end",
)
HISTORIES = (
    "45-year-old after a motor vehicle collision. Hypotensive; trachea deviated.",
    "22-year-old with right lower quadrant pain for 24 h, T 38.4 °C.",
    "68-year-old found at home; last seen well 3 h ago. “Worst headache of my life.”",
    "31-year-old, fall on the outstretched hand\nTender in the anatomical snuffbox.",
    "",
)
TEACHING_POINTS = (
    "• Do not delay treatment for imaging\n• Compare with the prior study",
    "• A normal radiograph does not exclude it\n• Repeat after 10–14 days",
    "• Windowing matters: W 80, L 40\n• Look at the edges of the image",
)
FIRST_NAMES = ("Ana", "Bjørn", "Chloé", "Dmitri", "Esra", "Femi", "Grace", "Hiro", "Íñigo", "Jun")
LAST_NAMES = (
    "O'Neil",
    "Müller",
    "Nguyễn",
    "Okafor",
    "García",
    "Li",
    "Sjöberg",
    "D’Souza",
    "Кузнецов",
)
COMMENTS = (
    "Nice case 👍",
    "Would you give contrast here?",
    "Agree with the main finding, but look at the left kidney.",
    'The "halo" sign; see also case 12',
    "Line one\r\nLine two\r\n",
)
ROLES = ("resident", "resident", "resident", "resident", "attending", "attending", "admin")
TRAINEE_LEVELS = ("student", "resident", "fellow", "attending")
SERIES = (
    "Axial Brain",
    "Coronal MPR",
    "Sagittal T2 FS",
    "Localizer",
    "Portal venous 5.0 mm",
    "DWI b1000",
)
XP_REASONS = ("correct_answer", "first_session_of_day", "streak_bonus", "perfect_session")
BADGES = (
    ("first_steps", "First Steps", "👣"),
    ("streak_7", "One Week", "🔥"),
    ("streak_30", "One Month", "🔥"),
    ("msk_master", "MSK Master", "🦴"),
    ("neuro_ninja", "Neuro Ninja", "🧠"),
    ("chest_champion", "Chest Champion", "🫁"),
    ("night_owl", "Night Owl", "🦉"),
    ("board_ready", "Board Ready", "🎓"),
)
PLAN_TEMPLATES = ("abr-chest", "abr-abdomen", "abr-neuro", "intern-basics", "call-prep")
MILESTONES = (
    "DR-PC1",
    "DR-PC2",
    "DR-MK1",
    "DR-MK2",
    "DR-SBP1",
    "DR-PBLI1",
    "DR-PROF1",
    "DR-ICS1",
)
TAGS = (
    "stroke",
    "trauma",
    "gyn",
    "paeds",
    "emergency",
    "oncology",
    "vascular",
    "classic",
    "subtle",
)
SYNC_EVENTS = ("progress", "bookmark", "settings", "quiz_answer")
DEVICES = ("ipad", "iphone-15", "chrome/win", "workstation 3")
