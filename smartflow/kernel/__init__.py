"""The ground floor: tiny pure modules that everything may import and that import no framework."""
