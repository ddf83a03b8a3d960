"""What tasks do."""
