"""One file a tab, and what a tab works on.

chat_tab, arena_tab, label_tab, runs_tab, recipe_tab    what is seen, and what a click does
parts         text that cannot do anything, and other pieces of pages
matches       the arena's rounds: who answers, on which side, and what a vote is stored as
label_desk    the pairs to label, and each person's way through them
line_picture  a metric's curve as a picture in the page
recipe_form   a recipe from the fields of a form, checked, with its command
"""
