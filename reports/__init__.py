"""What a run leaves for its readers: summary, pages, seal, history."""
