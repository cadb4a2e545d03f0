"""The policy pack of the stages; Pulumi runs :mod:`policy.__main__`."""
