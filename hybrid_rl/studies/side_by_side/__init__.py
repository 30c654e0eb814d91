"""Finished or unfinished runs on one page: `hybrid-rl report RUN...`."""
