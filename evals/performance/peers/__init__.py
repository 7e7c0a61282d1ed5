"""What ours is compared with: each file runs by itself in `.venv/peers` and imports nothing of ours."""
