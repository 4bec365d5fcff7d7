"""One evaluation from flags to run directories: the plan, the loop, the proof that an adapter is applied."""
