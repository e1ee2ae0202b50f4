"""Requests of every shape, drawn from the API's own schema, against the started server. See `make fuzz`."""
