"""What is to be done, in which order, and who has it: projects, initiatives, phases and tasks."""
