"""Task routes under load, beside the same views in bare Django and raw SQL."""
