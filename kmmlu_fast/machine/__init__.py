"""What this computer has and can do: processor, GPUs, memory, packages, hub. Knows no question."""
