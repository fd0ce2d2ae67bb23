"""The seven diagnoses of HAM10000, in the order of every logit vector, table and plot of this project."""

# Codes and meanings: Tschandl, Rosendahl, Kittler, Scientific Data 5, 180161 (2018), table 1.
DIAGNOSES: dict[str, str] = {
    "akiec": "actinic keratosis / intraepithelial carcinoma",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis-like lesion",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
}

CLASSES: tuple[str, ...] = tuple(DIAGNOSES)
