"""Which Vega-Lite draws the project's plots."""

# Of vl_convert's, the newest that speaks the dialect that the templates in .dvc/plots name (v5).
VEGA_LITE = "5.21"
