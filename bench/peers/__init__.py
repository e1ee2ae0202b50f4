"""Other projects' outboxes, as their documentation sets them up, on a PostgreSQL of their own."""
