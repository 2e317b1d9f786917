"""Anybody's encoder: opened, looked into, and handed on."""
