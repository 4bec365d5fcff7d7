"""One evaluation from flags to run directories: the plan, the loop, the probe of each adapter."""
