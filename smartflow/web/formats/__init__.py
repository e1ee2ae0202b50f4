"""How the admin writes moments: operators compare them with logs, so with seconds and in one order everywhere."""
