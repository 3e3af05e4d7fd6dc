"""What rendering costs, as ratios within one run: our renderers, their floors, and their peers."""
