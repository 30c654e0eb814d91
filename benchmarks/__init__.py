"""Measurements that back the figures of the documentation; each prints one JSON object on stdout."""
