"""The search for a recipe: many trainings, scored together on train questions, one confirmed on test."""
