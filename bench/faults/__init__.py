"""The fault rig: malformed inputs, kills, full disks and hostile servers, and what they broke."""
