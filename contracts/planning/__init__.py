"""The work to be done, its order, and who has it: projects, initiatives, phases and tasks."""
