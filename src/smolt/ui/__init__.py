"""The browser face, `smolt ui`: chat, a blind arena, labels, the runs, and a form for recipes. Needs the extra `ui`.

server       the address it listens on, and everything started and ended around the page
guard        what reaches the page at all: hosts, sizes, paths; the headers of every answer
sign_in      the password of a face that others can reach
face         the tabs put together, and their style
offers       the models there are, by name
talks        what is said to a model, and its answer as it comes
*_tab        one file a tab
matches      the arena's rounds: who answers, on which side, and what a vote is stored as
line_picture a metric's curve as a picture in the page
recipe_form  a recipe from the fields of a form, checked, with its command
launches     a training started from the form, as a process of its own
"""
