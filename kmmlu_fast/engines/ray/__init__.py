"""Replicas of an engine on Ray."""
