"""The protocol of the switch and the way back as a model that ``spin`` checks."""
