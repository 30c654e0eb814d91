"""Built-in rollout engines. They load exactly as a third-party plug-in does."""
