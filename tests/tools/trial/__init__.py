"""The planner on trial: pools whose truth is known, and how often what it says of them holds."""
