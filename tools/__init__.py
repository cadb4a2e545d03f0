"""What developers and operators run around the product; `make` alone lists it."""
