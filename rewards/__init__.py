"""Built-in rewards, one a file. They import `hybrid_rl` only and load exactly as a third-party plug-in does."""
