"""What is drawn: the charts of panels and the curves of trainings, in one style."""
