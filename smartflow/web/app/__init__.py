"""The page for people at /app/: sign-in, the four quadrants, the chat beside them, the stream that keeps it live."""
